"""`tldr profile list | show NAME | use NAME`: the overlays over params.yaml, what each would change, and changing it.

Reads params.yaml and profiles/NAME.yaml, which name some keys of params.yaml with other values; one that says `like: OTHER`
names what differs from that. `use` writes params.yaml, its comments kept; `tldr repro --profile NAME` runs without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from stages._errors import UserError
from stages._io import write_text
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
    """Show the profiles, overlays over params.yaml, or write one into it."""


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


@command.command("use")
@click.argument("name", shell_complete=complete_name)
@click.option("--force", is_flag=True, help="Overwrite values that were edited by hand.")
def use_command(name: str, force: bool) -> None:
    """Write the values of profile NAME into params.yaml.

    Keys that no profile names stay as they are, and comments too. A value that is not the one of the profile that
    params.yaml names now was edited by hand, and is overwritten with --force only.
    """
    root = project_root()
    changes = profile_changes(root, name)
    if not changes:
        click.echo(f"params.yaml holds every value of profile {name} already.")
        return
    apply_overrides(read_yaml(root / "params.yaml"), map(as_pair, changes))
    lost = set() if force else edited_keys(root) & {change.key for change in changes}
    if lost:
        raise UserError(
            f"params.yaml was edited by hand, and profile {name} would overwrite {', '.join(sorted(lost))}; put the values "
            "into a profile of your own (profiles/NAME.yaml), or add --force."
        )
    write_values(root / "params.yaml", changes)
    click.echo(
        f"params.yaml has {len(changes)} values of profile {name} now; `tldr profile use` with another name goes back."
    )


def edited_keys(root: Path) -> set[str]:
    """Keys whose value in params.yaml is not the one of the profile that it names; UserError if there is no such profile."""
    current = read_yaml(root / "params.yaml").get("profile")
    if current not in profile_names(root):
        raise UserError(
            f"params.yaml says profile: {current}, and there is no profiles/{current}.yaml to tell what was edited by hand; "
            "write it, or add --force."
        )
    return {change.key for change in profile_changes(root, current)}


def write_values(path: Path, changes: list[Change]) -> None:
    """Put every `then` in its place in the YAML file at `path`, written whole."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    document = yaml.load(path.read_text(encoding="utf-8"))
    for change in changes:
        *blocks, last = change.key.split(".")
        place = document
        for block in blocks:
            place = place[block]
        place[last] = change.then
    text = StringIO()
    yaml.dump(document, text)
    write_text(path, text.getvalue())


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
    return list(_changes(read_yaml(root / "params.yaml"), overlay_of(root, name), f"profiles/{name}.yaml"))


def overlay_of(root: Path, name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of profile `name`, with those of the profile that it is like; `above` are those that led here."""
    names = profile_names(root)
    if name not in names:
        raise UserError(f"There is no profile {name!r}; the profiles are {', '.join(names) or 'none'}.")
    path = f"profiles/{name}.yaml"
    overlay = read_yaml(root / path)
    if not isinstance(overlay, dict) or overlay.get("profile") != name:
        raise UserError(f"{path} must be a mapping that says `profile: {name}`; correct it and run again.")
    other = overlay.pop("like", None)
    if other is None:
        return overlay
    if other in (*above, name):
        raise UserError(f"{path} is like {other}, which is like {name} in the end; correct one of them and run again.")
    return _merged(overlay_of(root, other, (*above, name)), overlay)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return below | both


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
