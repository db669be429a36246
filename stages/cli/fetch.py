"""`tldr fetch`: download what the fetch block of params.yaml pins from the Hugging Face hub; the stages stay offline.

Reads params.yaml, a token file and the hub; writes the pinned paths and .tldr/fetch/ (see stages/data/hub.py). With a
container engine the download itself runs in a container, the only one with a network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
from collections.abc import Iterator
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
    from stages.data.pins import Pin


@click.command("fetch")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a token of the hub. [default: file named by HF_TOKEN_PATH, else that of `hf auth login`]",
)
@click.option("--dry-run", is_flag=True, help="Print what would be downloaded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, token_file: Path | None, dry_run: bool, as_json: bool) -> None:
    """Download the model and the files that params.yaml pins (block fetch) from the Hugging Face hub.

    What is there already is checked without the network and not downloaded again. A stopped call goes on when run
    again. The token is read from a file only; HF_ENDPOINT names another hub.
    """
    from stages.data.pins import pins

    root = project_root()
    params = load_params(root)
    pinned = pins(params)
    if not pinned:
        click.echo("params.yaml pins nothing on the hub (block fetch): everything is in the checkout.", err=as_json)
        if as_json:
            click.echo("[]")
        return
    token_file = chosen_token_file(token_file)
    if params.container.engine != "host" and INSIDE not in os.environ:
        from containers.run import run_fetch

        options = [name for name, wanted in (("--dry-run", dry_run), ("--json", as_json)) if wanted]
        ctx.exit(run_fetch(root, params, options, token_file))
    from stages.data.hub import one_at_a_time

    with stopped_at_once(), contextlib.nullcontext() if dry_run else one_at_a_time(root):
        rows = [show(done, as_json) for done in fetch_all(root, pinned, token_file, dry_run=dry_run)]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))


def fetch_all(root: Path, pinned: list[Pin], token_file: Path | None, *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """One row per pin, as it is done; what must not be overwritten is refused before anything is downloaded."""
    from stages.data import hub
    from stages.data.pins import state

    states = [state(root, pin) for pin in pinned]
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


def row(root: Path, pin: Pin, outcome: str, **more: int) -> dict[str, Any]:
    from stages.data.pins import read_record

    values = {name: getattr(pin, name) for name in ("key", "path", "repo", "revision", "file")}
    files = read_record(root, pin).get("files", {}) if outcome in ("is there", "fetched") else {}
    digest = files.get(pin.file, {}).get("sha256", pin.sha256)
    return {**values, "outcome": outcome, **more, "sha256": digest, "pinned_sha256": pin.sha256}


def show(done: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """A line as soon as it is true; on standard error if JSON is wanted."""
    line = f"{done['key']}: {done['path']} {done['outcome']} ({done['repo']}@{done['revision'][:8]})"
    if "num_bytes" in done:
        line += f", {done['num_files']} files, {done['num_bytes'] / 1e9:.2f} GB"
    click.echo(line, err=as_json)
    if done["file"] is not None and done["pinned_sha256"] is None and done["sha256"] is not None:
        click.echo(f"{done['key']}: set its sha256 to {done['sha256']} to pin the contents too.", err=as_json)
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
