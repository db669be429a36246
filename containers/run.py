"""Runs a stage, or `tldr fetch`, in its container: docker, podman or apptainer behind two functions.

The engine `host` is not here: then the stage runs in the process that was asked, see stages/cli/run.py. Reads dvc.yaml,
params.yaml and containers/images.yaml; writes .tldr/inside/<stage>/, where the process inside says how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from containers import command_engines, docker_engine
from containers.images import Image, check_inputs, read_images
from containers.inside import LOCK
from containers.sandbox import Sandbox, fetch_sandbox, scratch_folders, stage_sandbox
from containers.stage_files import stage_files
from stages._param_blocks import ContainerParams
from stages._params import Params


def run_stage(root: Path, params: Params, stage: str) -> int:
    """Exit code of `stage` of the checkout `root`, run in the image that dvc.yaml names for it."""
    files = stage_files(root, stage)
    image = read_images(root)[files.image]
    check_inputs(root, image)
    sandbox = stage_sandbox(root, params, stage, files, image)
    container = params.container
    click.echo(
        f"{stage}: container engine {container.engine}, device {container.device}, image {image.reference}", err=True
    )
    return run(sandbox, root, container.engine, scratch_folders(root, stage)[1])


def run_fetch(root: Path, params: Params, arguments: list[str], token_file: Path | None) -> int:
    """Exit code of `tldr fetch ARGUMENTS` in the cpu image, with a network; the token is a read-only file in it."""
    image = read_images(root)["cpu"]
    check_inputs(root, image)
    sandbox = fetch_sandbox(root, params, arguments, token_file, image)
    return run(sandbox, root, params.container.engine, scratch_folders(root, "fetch")[1])


def run(sandbox: Sandbox, root: Path, engine: str, scratch: Path) -> int:
    """Exit code of `sandbox` under `engine`; UserError before anything starts if it cannot run here.

    `scratch` is mounted in it, and holds the file whose lock tells the watchdog inside that this process lives.
    """
    with launcher_lock(scratch / "launcher.lock") as variables:
        return _run(replace(sandbox, environment={**sandbox.environment, **variables}), root, engine, scratch)


@contextlib.contextmanager
def launcher_lock(path: Path) -> Iterator[dict[str, str]]:
    """Hold a lock on `path`; the variables that tell the watchdog of it, none where the disk knows no locks."""
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield {}
        else:
            yield {LOCK: str(path)}


def _run(sandbox: Sandbox, root: Path, engine: str, scratch: Path) -> int:
    check(root, sandbox.image, engine, gpu=bool(sandbox.gpus))
    if engine == "docker":
        return docker_engine.run(sandbox)
    if engine == "podman":
        command_engines.check_paths(sandbox, ",")
        ulimits = command_engines.caller_ulimits(sandbox.limits.pids)
        return command_engines.run(command_engines.podman_argv(sandbox, rootless=os.getuid() != 0, ulimits=ulimits))
    command_engines.check_paths(sandbox, ",:")
    sif = command_engines.sif_path(root, sandbox.image)
    return command_engines.run(command_engines.apptainer_argv(sandbox, sif, scratch))


def check(root: Path, image: Image, engine: str, *, gpu: bool) -> None:
    """UserError if `engine` or the locked image is not on this machine, or the GPU that is wanted."""
    if engine == "docker":
        docker_engine.check(image, gpu=gpu)
    elif engine == "podman":
        command_engines.check_podman(image, gpu=gpu)
    else:
        command_engines.check_apptainer(image, command_engines.sif_path(root, image), gpu=gpu)


def check_all(root: Path, container: ContainerParams) -> None:
    """The same for every image that the stages need, before DVC removes the outputs of the first one."""
    images = read_images(root)
    for name in dict.fromkeys((container.device, "cpu")):
        check_inputs(root, images[name])
        check(root, images[name], container.engine, gpu=name == "cuda")
