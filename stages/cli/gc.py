"""`tldr gc`: the partial work of the stages, and the removal of what no run goes on from.

Reads .tldr/work (see stages/_work.py) and .tldr/running.json; removes folders of .tldr/work/<stage>/, each of which is
first renamed to a name that is never taken for work: a removal that is interrupted is ended by the next `tldr gc`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stages._errors import UserError
from stages.cli._project import project_root, read_record, running_stage, work_name

REMOVED, REMOVABLE, KEPT, FAILED = "removed", "removable", "kept", "failed"


@dataclass(frozen=True)
class Row:
    """A folder of .tldr/work/<stage>/. `changed`: last change of anything in it, UTC; `action`: what was done with it."""

    stage: str
    folder: str
    state: str
    num_bytes: int
    changed: str
    action: str
    settings: Any
    image: Any

    @property
    def name(self) -> str:
        return str(Path(".tldr", "work", self.stage, self.folder))


@click.command("gc")
@click.option("--all", "everything", is_flag=True, help="Remove also unfinished work.")
@click.option("--dry-run", is_flag=True, help="List, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(everything: bool, dry_run: bool, as_json: bool) -> None:
    """List the partial work in .tldr/work, and remove what no run goes on from.

    That is the work of runs that ended well. Unfinished work is kept per parameters, inputs, code and image, and a run
    with the same ones goes on from it: it is removed with --all only. Work that a run uses is never removed.
    """
    from stages._work import FINISHED, UNFINISHED

    root = project_root()
    running = work_name(running_stage(root).get("stage", ""))
    rows = []
    for base in stage_folders(root):
        # In a virtual machine the lock of a running stage cannot be seen from outside.
        unfinished = everything and base.name != running
        rows += collect(base, (FINISHED, UNFINISHED) if unfinished else (FINISHED,), dry_run=dry_run)
    others = strays(root)
    freed = sum(row.num_bytes for row in rows if row.action in (REMOVED, REMOVABLE))
    if as_json:
        document = {
            "dry_run": dry_run,
            "freed_bytes": freed,
            "folders": [asdict(row) for row in rows],
            "others": others,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        show(rows, freed, others, everything=everything)
    check_removed(rows)


def stage_folders(root: Path) -> list[Path]:
    """The folders .tldr/work/<stage>, no links."""
    work = root / ".tldr" / "work"
    return sorted(path for path in work.iterdir() if is_folder(path)) if work.is_dir() else []


def strays(root: Path) -> list[str]:
    """What lies among the folders and is none, such as a file or a link; nobody's business."""
    found = []
    for parent in (root / ".tldr" / "work", *stage_folders(root)):
        with contextlib.suppress(OSError):
            found += [str(path.relative_to(root)) for path in sorted(parent.iterdir()) if not is_folder(path)]
    return found


def is_folder(path: Path) -> bool:
    """A folder itself, no link to one."""
    return path.is_dir() and not path.is_symlink()


def collect(base: Path, states: Collection[str], *, dry_run: bool) -> list[Row]:
    """Remove the folders of the stage folder `base` that are in one of `states` or left over from a former removal; one
    row for each that is there. A stage folder that cannot be read is itself a row of state UNKNOWN."""
    from stages._work import LEFT_OVER, MADE_BY, UNKNOWN, Work, survey

    try:
        found = survey(base, () if dry_run else states)
    except OSError:
        found = [Work("", UNKNOWN, base)]
    rows = []
    for work in found:
        if not work.path.exists():
            continue
        num_bytes, changed = measure(work.path)
        record = read_record(work.path / MADE_BY)
        action = KEPT
        if work.state in states or work.state == LEFT_OVER:
            action = REMOVABLE if dry_run else _remove(work.path)
        when = datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds")
        about = record.get("settings"), record.get("image")
        rows.append(Row(base.name, work.name, work.state, num_bytes, when, action, *about))
    return rows


def _remove(folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    return FAILED if folder.exists() else REMOVED


def measure(folder: Path) -> tuple[int, float]:
    """Bytes of the files in `folder`, and when the last of anything in it changed (seconds since 1970); what cannot be
    read or vanishes meanwhile does not count, and links are not followed."""
    num_bytes, changed = 0, 0.0
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with contextlib.suppress(OSError):
                about = path.lstat()
                num_bytes += 0 if path == Path(parent) else about.st_size
                changed = max(changed, about.st_mtime)
    return num_bytes, changed


def show(rows: list[Row], freed: int, others: list[str], *, everything: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("stage", "folder", "state", "size", "last change", ""):
        table.add_column(column, justify="right" if column == "size" else "left")
    for row in rows:
        when = datetime.fromisoformat(row.changed).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(row.stage, row.folder[:8], row.state, f"{row.num_bytes / 1e6:.1f} MB", when, row.action)
    if rows:
        Console().print(table)
    for sentence in summary(rows, freed, everything=everything):
        click.echo(sentence)
    if others:
        click.echo(f"Left alone, no folder of a stage: {', '.join(others)}.")


def summary(rows: list[Row], freed: int, *, everything: bool) -> Iterator[str]:
    """What was removed, and why the rest was not."""
    from stages._work import IN_USE, UNFINISHED, UNKNOWN

    actions = Counter(row.action for row in rows)
    if actions[REMOVED]:
        yield f"Removed {_folders(actions[REMOVED])}, {freed:,} bytes freed."
    elif actions[REMOVABLE]:
        yield f"Without --dry-run this removes {_folders(actions[REMOVABLE])} and frees {freed:,} bytes."
    else:
        yield "There is nothing to remove in .tldr/work, 0 bytes freed."
    for row in rows:
        if row.state == IN_USE:
            yield f"{row.name} is in use by a run and is kept."
        if row.state == UNKNOWN:
            yield f"{row.name} is kept: whether a run uses it cannot be found out; remove it by hand if none does."
    unfinished = [row.num_bytes for row in rows if row.state == UNFINISHED and row.action == KEPT]
    if unfinished:
        advice = "its stage is running" if everything else "`tldr gc --all` removes it"
        yield f"Unfinished work is kept ({_folders(len(unfinished))}, {sum(unfinished):,} bytes): {advice}."


def _folders(number: int) -> str:
    return f"{number} folder{'' if number == 1 else 's'}"


def check_removed(rows: list[Row]) -> None:
    failed = [row.name for row in rows if row.action == FAILED]
    if failed:
        raise UserError(
            f"Not everything in {', '.join(failed)} could be removed; change owner or mode of what is left there (its name "
            f"now begins with .removed-) and run `tldr gc` again."
        )
