"""`tldr profile list | show NAME`: the overlays over params.yaml, and what each would change.

Reads params.yaml and profiles/NAME.yaml, which name some keys of params.yaml with other values; writes nothing.
`tldr repro --profile NAME` runs with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from stages._errors import UserError
from stages._params import read_yaml
from stages.cli._overrides import apply_overrides
from stages.cli._project import project_root


class Change(NamedTuple):
    key: str
    now: Any
    then: Any


def complete_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of profiles, for the completion of the shell."""
    try:
        return [name for name in profile_names(project_root()) if name.startswith(incomplete)]
    except UserError:
        return []


@click.group("profile")
def command() -> None:
    """Show the profiles: overlays over params.yaml."""


@command.command("list")
def list_command() -> None:
    """Print every profile with the first line of its file."""
    root = project_root()
    names = profile_names(root)
    width = max(map(len, names), default=0)
    for name in names:
        click.echo(f"{name:{width}}  {first_comment(root / 'profiles' / f'{name}.yaml')}")


@command.command("show")
@click.argument("name", shell_complete=complete_name)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, as_json: bool) -> None:
    """Print what profile NAME changes in params.yaml: key, value now, value then."""
    root = project_root()
    changes = profile_changes(root, name)
    apply_overrides(
        read_yaml(root / "params.yaml"), map(as_pair, changes)
    )  # UserError if it makes no valid params.yaml
    if as_json:
        click.echo(json.dumps([change._asdict() for change in changes], indent=2, ensure_ascii=False))
    elif changes:
        show(changes)
    else:
        click.echo(f"params.yaml holds every value of profile {name} already.")


def show(changes: list[Change]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in Change._fields:
        table.add_column(column, overflow="fold")
    for key, now, then in changes:
        table.add_row(key, Text(_text(now)), Text(_text(then)))
    Console().print(table)


def profile_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "profiles").glob("*.yaml"))


def first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def overlay_pairs(root: Path, name: str) -> list[str]:
    """What profile `name` changes, as KEY=VALUE of `tldr repro -S`; empty if params.yaml holds its values already."""
    return [as_pair(change) for change in profile_changes(root, name)]


def as_pair(change: Change) -> str:
    return f"{change.key}={_text(change.then)}"


def _text(value: Any) -> str:
    """JSON, which YAML reads back as the same value."""
    return json.dumps(value, ensure_ascii=False)


def profile_changes(root: Path, name: str) -> list[Change]:
    """UserError if there is no such profile, or its file names a key that params.yaml does not have."""
    names = profile_names(root)
    if name not in names:
        raise UserError(f"There is no profile {name!r}; the profiles are {', '.join(names) or 'none'}.")
    path = f"profiles/{name}.yaml"
    overlay = read_yaml(root / path)
    if not isinstance(overlay, dict) or overlay.get("profile") != name:
        raise UserError(f"{path} must be a mapping that says `profile: {name}`; correct it and run again.")
    return list(_changes(read_yaml(root / "params.yaml"), overlay, path))


def _changes(document: Any, overlay: dict[str, Any], path: str, prefix: str = "") -> Iterator[Change]:
    for name, then in overlay.items():
        key = f"{prefix}{name}"
        if name not in document:
            raise UserError(f"{path}: params.yaml has no key {key}; correct the profile and run again.")
        now = document[name]
        if isinstance(now, dict) and isinstance(then, dict):
            yield from _changes(now, then, path, f"{key}.")
        elif now != then:
            yield Change(key, now, then)
