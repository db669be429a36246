"""`tldr fetch`: download what params.yaml and data/sources.yaml pin; the stages stay offline.

Reads params.yaml, data/sources.yaml, a token file and the hub; writes the pinned paths, .tldr/fetch/ (stages/data/hub.py) and
the problem sets that are made of the files (stages/data/problem_sets.py). With a container engine the download itself runs
in a container, the only one with a network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from stages._errors import EXIT_CTRL_C, EXIT_INTERRUPTED, UserError
from stages._params import load_params
from stages._signals import handled
from stages.cli._dvc import check_lock
from stages.cli._project import INSIDE, project_root

if TYPE_CHECKING:
    from stages._params import Params
    from stages.data.pins import Pin, State


@click.command("fetch")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a token of the hub. [default: file named by HF_TOKEN_PATH, else that of `hf auth login`]",
)
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to take the files of data/sources.yaml from, by their names; nothing is downloaded.",
)
@click.option("--lock", is_flag=True, help="Write revisions and digests that data/sources.yaml lacks into it.")
@click.option("--dry-run", is_flag=True, help="Print what would be downloaded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context, token_file: Path | None, folder: Path | None, lock: bool, dry_run: bool, as_json: bool
) -> None:
    """Download the model and the files that params.yaml needs, and make its problem sets.

    The block fetch of params.yaml pins models and files on the Hugging Face hub, data/sources.yaml the published files behind
    data.*.path and evaluate.tasks. What is there already is checked without the network and not downloaded again. A stopped
    call goes on when run again. The token is read from a file only; HF_ENDPOINT names another hub.
    """
    from stages.data.pins import pins, source_pins

    root = project_root()
    params = load_params(root)
    pinned = [*pins(params), *source_pins(root, params)]
    if not pinned:
        click.echo("params.yaml pins nothing on the hub (block fetch): everything is in the checkout.", err=as_json)
        if as_json:
            click.echo("[]")
        return
    if folder is not None:
        left = [pin.key for pin in pinned if pin.declared_in == "params.yaml"]
        if left:
            click.echo(
                f"Not taken from {folder}: {', '.join(left)}; `tldr fetch` without --from downloads them.", err=True
            )
        pinned = [pin for pin in pinned if pin.key not in left]
    token_file = None if folder is not None else chosen_token_file(token_file)
    if params.container.engine != "host" and INSIDE not in os.environ and folder is None:
        from containers.run import run_fetch

        wanted = {"--lock": lock, "--dry-run": dry_run, "--json": as_json}
        ctx.exit(run_fetch(root, params, [name for name, chosen in wanted.items() if chosen], token_file))
    from stages.data.hub import one_at_a_time

    with contextlib.nullcontext() if dry_run else one_at_a_time(root):
        with stopped_at_once():
            rows = [
                show(done, as_json) for done in fetch_all(root, pinned, token_file, folder, lock=lock, dry_run=dry_run)
            ]
        if not dry_run:
            rows += finish(root, params, rows, lock=lock, as_json=as_json)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))


def finish(
    root: Path, params: Params, rows: list[dict[str, Any]], *, lock: bool, as_json: bool
) -> list[dict[str, Any]]:
    """Once the files are there: what was found goes into data/sources.yaml, and the problem sets are made."""
    from stages.cli._problem_sets import make_and_show
    from stages.data.pins import SOURCES

    if not (root / SOURCES).is_file():
        return []
    from stages.data.sources import read_sources, write_lock

    if lock:
        written = write_lock(root, {row["key"].partition(".")[2]: found_of(row) for row in rows if row["sha256"]})
        click.echo(f"{SOURCES}: {'wrote ' + ', '.join(written) if written else 'nothing was missing'}.", err=True)
    return make_and_show(root, read_sources(root), params, as_json=as_json)


def found_of(row: dict[str, Any]) -> dict[str, str]:
    return {key: row[key] for key in ("revision", "sha256") if row[key]}


def fetch_all(
    root: Path, pinned: list[Pin], token_file: Path | None, folder: Path | None, *, lock: bool, dry_run: bool
) -> Iterator[dict[str, Any]]:
    """One row per pin, as it is done; what must not be overwritten is refused before anything is downloaded."""
    from stages.data import hub
    from stages.data.pins import state

    states = [state(root, pin) for pin in pinned]
    if folder is not None:
        yield from take_all(root, pinned, states, folder, dry_run=dry_run)
        return
    for pin, found in zip(pinned, states, strict=True):
        if found != "there" and pin.revision is None and pin.url is None and not lock:
            raise UserError(
                f"{pin.declared_in} names no revision for {pin.key} ({pin.repo}); run `tldr fetch --lock`, which pins the "
                "newest and writes it down."
            )
    todo = any(found != "there" for found in states)
    token = read_token(token_file) if todo and token_file is not None else None
    if todo:
        if any(os.environ.get(name) for name in hub.TOKEN_VARIABLES):
            click.echo("The token in the environment is ignored; give it by --token-file FILE.", err=True)
        hub.go_online(root, inside_container=INSIDE in os.environ)
    for pin, found in zip(pinned, states, strict=True):
        if found == "there":
            yield row(root, pin, "is there")
            continue
        if pin.revision is None and pin.url is None:
            pin = replace(pin, revision=hub.newest(pin, token))
        files = hub.listing(pin, token)
        num_bytes = sum(file.size for file in files.values())
        if dry_run:
            yield row(root, pin, f"would be fetched ({found})", num_files=len(files), num_bytes=num_bytes)
            continue
        click.echo(f"{pin.key}: {pin.name}, {len(files)} files, {num_bytes / 1e9:.2f} GB", err=True)
        if INSIDE not in os.environ:
            check_lock(root)
        hub.fetch(root, pin, found, files, token)
        yield row(root, pin, "fetched")


def take_all(
    root: Path, pinned: list[Pin], states: list[State], folder: Path, *, dry_run: bool
) -> Iterator[dict[str, Any]]:
    """As `fetch_all`, with copies of `folder` in place of the network; UserError that names all that it lacks."""
    from stages.data.hub import place_copy
    from stages.data.pins import check_pinned_digest, sha256

    copies = {pin.key: copy_in(folder, pin) for pin, found in zip(pinned, states, strict=True) if found != "there"}
    missing = [f"{Path(pin.path).name} ({pin.repo})" for pin in pinned if copies.get(pin.key, pin) is None]
    if missing:
        raise UserError(f"{folder} has no {', '.join(missing)}; put them there under these names, or leave out --from.")
    for pin in pinned:  # all of them before any is put in place
        copy = copies.get(pin.key)
        if copy is not None:
            check_pinned_digest(pin, sha256(copy))
    if not dry_run:
        check_lock(root)
    for pin in pinned:
        copy = copies.get(pin.key)
        if copy is not None and not dry_run:
            place_copy(root, pin, copy)
        outcome = "is there" if copy is None else f"would be taken from {copy}" if dry_run else f"taken from {copy}"
        yield row(root, pin, outcome)


def copy_in(folder: Path, pin: Pin) -> Path | None:
    """The file under the name that it has in the checkout, or at the place that it has in its repository."""
    for path in (folder / Path(pin.path).name, folder / pin.repo / str(pin.file)):
        if path.is_file():
            return path
    return None


def row(root: Path, pin: Pin, outcome: str, **more: int) -> dict[str, Any]:
    from stages.data.pins import read_record

    values = {name: getattr(pin, name) for name in ("key", "path", "repo", "revision", "file")}
    files = {} if outcome.startswith("would") else read_record(root, pin).get("files", {})
    digest = files.get(pin.file, {}).get("sha256", pin.sha256)
    return {**values, "outcome": outcome, **more, "sha256": digest, "pinned_sha256": pin.sha256}


def show(done: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """A line as soon as it is true; on standard error if JSON is wanted."""
    commit = f"@{done['revision'][:8]}" if done["revision"] else ""
    line = f"{done['key']}: {done['path']} {done['outcome']} ({done['repo']}{commit})"
    if "num_bytes" in done:
        line += f", {done['num_files']} files, {done['num_bytes'] / 1e9:.2f} GB"
    click.echo(line, err=as_json)
    if done["file"] is not None and done["pinned_sha256"] is None and done["sha256"] is not None:
        how = (
            "`tldr fetch --lock` pins"
            if done["key"].startswith("files.")
            else f"set its sha256 to {done['sha256']} to pin"
        )
        click.echo(f"{done['key']}: {how} the contents too.", err=as_json)
    return done


def chosen_token_file(option: Path | None) -> Path | None:
    """The option, else the file that HF_TOKEN_PATH names, else the hub's own if it exists; a warning if others can read it."""
    named = os.environ.get("HF_TOKEN_PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    default = Path(os.environ.get("HF_HOME") or cache, "token").expanduser()
    path = option or (Path(named).expanduser() if named else default)
    if not path.is_file():
        if path == default:
            return None
        raise UserError(f"HF_TOKEN_PATH names {path}, which is no file; write the token there, or unset the variable.")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and INSIDE not in os.environ:
        click.echo(f"Warning: others can read {path}; run `chmod 600 {path}`.", err=True)
    return path


def read_token(path: Path) -> str:
    """UserError, which does not show it, unless the file holds one word: libraries print a header that is malformed."""
    token = path.read_bytes().strip()
    if not re.fullmatch(rb"[\x21-\x7e]+", token):
        raise UserError(f"{path} does not hold a token, which is one word; write it there again.")
    return token.decode("ascii")


@contextlib.contextmanager
def stopped_at_once() -> Iterator[None]:
    """Within it SIGINT and SIGTERM end the process: the hub's threads would first finish files of many gigabytes.

    Nothing is lost by it that a kill would not lose: downloads are renamed into place when they are whole.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        os.write(2, b"\nError: Stopped; run the same command again to go on, finished files are kept.\n")
        os._exit(EXIT_CTRL_C if number == signal.SIGINT else EXIT_INTERRUPTED)

    with handled({signal.SIGINT: stop, signal.SIGTERM: stop}):
        yield
