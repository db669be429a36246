"""`tldr images list | lock | build | pull | verify`: the images that the stages run in, pinned by containers/images.yaml.

Reads containers/ and params.yaml; `lock` writes containers/images.yaml and the requirement locks.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages._errors import UserError
from stages._params import load_params
from stages.cli._project import project_root

if TYPE_CHECKING:
    from containers.images import Image

ENGINE = click.option(
    "--engine",
    type=click.Choice(["docker", "podman", "apptainer"]),
    help="Container engine. [default: container.engine of params.yaml, docker for host]",
)
NAMES = click.argument("names", nargs=-1, metavar="[NAME]...")


@click.group("images")
def command() -> None:
    """Lock, build, pull and verify the container images that the stages run in."""


@command.command("list")
@ENGINE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(engine: str | None, as_json: bool) -> None:
    """Show every image of the lock, and whether it is on this machine."""
    from containers.building import state

    root = project_root()
    engine = engine or default_engine(root)
    rows = [vars(image) | {"engine": engine, "state": state(root, image, engine)} for image in chosen(root, ())]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("name", "reference", "base", "state"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["reference"], row["base"], f"{row['state']} ({engine})")
    Console().print(table)


@command.command("lock")
@click.option("--digests-only", is_flag=True, help="Keep the requirement locks; only write containers/images.yaml.")
@click.option("--base", "bases", multiple=True, metavar="NAME=IMAGE@sha256:...", help="Build on another base.")
@click.option(
    "--published", "published", multiple=True, metavar="NAME=IMAGE@sha256:...", help="Digest of a pushed image."
)
def lock_command(digests_only: bool, bases: tuple[str, ...], published: tuple[str, ...]) -> None:
    """Resolve the requirement locks anew (needs uv and the package index), and write containers/images.yaml.

    Registry digests are kept for an image whose inputs stay the same.
    """
    from containers.images import make_images, read_images, write_images

    root = project_root()
    if not digests_only:
        from containers.locks import write_locks

        write_locks(root)
    before: dict[str, Image] = {}
    with contextlib.suppress(UserError):  # a lock that is missing or broken has nothing to keep
        before = read_images(root)
    images = make_images(root, pairs("--base", bases), {})
    known = {name: image.published for name, image in before.items() if images[name].inputs == image.inputs}
    write_images(root, make_images(root, pairs("--base", bases), known | pairs("--published", published)))
    for name, image in images.items():
        same = name in before and before[name].inputs == image.inputs
        click.echo(f"{image.reference}: {'unchanged' if same else 'new, build it with `tldr images build`'}", err=True)


@command.command("build")
@NAMES
@ENGINE
@click.option("--offline", is_flag=True, help="Without network: packages come from containers/wheels only.")
def build_command(names: tuple[str, ...], engine: str | None, offline: bool) -> None:
    """Build the locked images. [default: cpu, and cuda where there is a GPU]"""
    from containers.building import build

    root = project_root()
    for image in chosen(root, names or here()):
        build(root, image, engine or default_engine(root), offline=offline)
        click.echo(f"Built {image.reference}; `tldr images verify {image.name}` looks inside.", err=True)


@command.command("pull")
@NAMES
@ENGINE
def pull_command(names: tuple[str, ...], engine: str | None) -> None:
    """Pull the published images by digest. [default: cpu, and cuda where there is a GPU]"""
    from containers.building import pull

    root = project_root()
    for image in chosen(root, names or here()):
        pull(root, image, engine or default_engine(root))
        click.echo(f"Pulled {image.reference}.", err=True)


@command.command("verify")
@NAMES
@ENGINE
@click.option("--gpu", is_flag=True, help="Require a usable GPU inside.")
@click.pass_context
def verify_command(ctx: click.Context, names: tuple[str, ...], engine: str | None, gpu: bool) -> None:
    """Run each image's own checks inside it, as locked down as a stage; exit code 1 if one fails."""
    from containers.run import run
    from containers.sandbox import scratch_folders, verify_sandbox

    root = project_root()
    params = load_params(root)
    codes = []
    for image in chosen(root, names or here()):
        click.echo(f"{image.reference}:", err=True)
        sandbox = verify_sandbox(root, params, image, gpu=gpu)
        codes.append(run(sandbox, root, engine or default_engine(root), scratch_folders(root, "verify")[1]))
    ctx.exit(int(any(codes)))


def default_engine(root: Path) -> str:
    engine = load_params(root).container.engine
    return "docker" if engine == "host" else engine


def here() -> tuple[str, ...]:
    """The images that this machine has a use for."""
    from containers.gpus import read_gpus

    return ("cpu", "cuda") if read_gpus() else ("cpu",)


def chosen(root: Path, names: tuple[str, ...]) -> list[Image]:
    """The locked images of these names, all for none."""
    from containers.images import read_images

    images = read_images(root)
    unknown = [name for name in names if name not in images]
    if unknown:
        raise UserError(f"There is no image {unknown[0]!r}; the images are {', '.join(images)}.")
    return [images[name] for name in names or images]


def pairs(option: str, values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE options as a dict; UserError for one without "=" or of an unknown name."""
    from containers.images import NAMES as KNOWN

    result = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or name not in KNOWN:
            raise UserError(f"{option} {text!r} is not NAME=IMAGE@sha256:DIGEST with NAME one of {', '.join(KNOWN)}.")
        result[name] = value
    return result
