"""`tldr status`: which stages are up to date, what partial work there is, where the results are.

Reads dvc.yaml and dvc.lock (through `dvc status --json` in a child process), .tldr/ and results/; writes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click

from stages._errors import UserError
from stages.cli._dvc import DVC, check_repository, dvc_environment, lock_holder
from stages.cli._project import STAGES, project_root, read_state, running_stage, work_name

RESULTS = {
    "results/metrics.json": "numbers of the comparison",
    "results/questions/candidate.csv": "every test answer of the compressed model",
    "results/ratio.csv": "ratio trajectory",
    "artifacts/model": "the compressed model",
}
MISSING = "outputs missing"


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Say which stages are up to date, what partial work there is, and where the results are."""
    root = project_root()
    check_repository(root, experiment=False)
    status = collect(root)
    if as_json:
        click.echo(json.dumps(status, indent=2))
    else:
        show(status)


def collect(root: Path) -> dict[str, Any]:
    """`stages` {name: {state, partial_bytes}}, `running`, `last_exit`, `results` {path: what it is}."""
    running = running_stage(root)
    busy = lock_holder(root)
    changes = None if running or busy else changed_stages(root)
    return {
        "stages": {
            name: {"state": _state(name, changes, running), "partial_bytes": partial_bytes(root, name)}
            for name in STAGES
        },
        "running": running.get("stage") or busy,
        "last_exit": read_state(root, "last_exit"),
        "results": {path: about for path, about in RESULTS.items() if (root / path).exists()},
    }


def changed_stages(root: Path) -> dict[str, Any]:
    """What `dvc status --json` says: {stage: [{"changed deps": {...}}, ...]} for the stages that are not up to date."""
    answer = subprocess.run(
        [*DVC, "status", "--json"], cwd=root, env=dvc_environment(""), capture_output=True, text=True
    )
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"DVC cannot say what is up to date ({lines[-1]}); run `dvc status` for the whole message.")
    changes: dict[str, Any] = json.loads(answer.stdout or "{}")
    return changes


def _state(name: str, changes: dict[str, Any] | None, running: dict[str, Any]) -> str:
    if name == running.get("stage"):
        return "running"
    if changes is None:
        return "not known while a stage runs"
    if name not in changes:
        return "up to date"
    if has_missing_outputs(changes[name]):
        return MISSING
    return "; ".join(text for change in changes[name] for text in _describe(change)) or "changed"


def has_missing_outputs(changes: list[Any]) -> bool:
    """Whether one of the changes of a stage says that all its outputs are gone."""
    return any(MISSING in _describe(change) for change in changes)


def _describe(change: Any) -> list[str]:
    """One line per kind of change, such as "changed: train.lr, data/tiny/test.jsonl"."""
    if isinstance(change, str):
        return [change]
    lines = []
    for kind, items in change.items():
        outputs = kind == "changed outs"
        if outputs and all(state in ("deleted", "not in cache") for state in items.values()):
            lines.append(MISSING)
            continue
        names = [name for path, state in items.items() for name in (state if isinstance(state, dict) else [path])]
        lines.append(f"{'outputs changed' if outputs else 'changed'}: {', '.join(names)}")
    return lines


def partial_bytes(root: Path, stage: str) -> int:
    """Size of the unfinished work of a stage and its shards, of whichever parameters; finished work that is still there does
    not count."""
    from stages._work import ASIDE, DONE
    from stages.cli.gc import is_folder, measure

    work, name = root / ".tldr" / "work", work_name(stage)
    return sum(
        measure(folder)[0]
        for folder in (*work.glob(f"{name}/*"), *work.glob(f"{name}-shard-*-of-*/*"))
        if is_folder(folder) and not folder.name.startswith(ASIDE) and not os.access(folder / DONE, os.F_OK)
    )


def show(status: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("stage", "state", "partial work"):
        table.add_column(column, justify="right" if column == "partial work" else "left")
    for name, stage in status["stages"].items():
        style = {"up to date": "green", "running": "cyan"}.get(stage["state"], "yellow")
        size = stage["partial_bytes"]
        table.add_row(name, Text(stage["state"], style), f"{size / 1e6:.1f} MB" if size else "")
    console.print(table)
    if status["running"]:
        console.print(f"Running: {status['running']}", highlight=False)
    last = status["last_exit"]
    if last.get("exit_code"):
        console.print(f"Last stop: {last['stage']}, exit code {last['exit_code']}. {last['message']}", markup=False)
    for path, about in status["results"].items():
        console.print(f"{path}: {about}", highlight=False)
    console.print(_next_step(status), highlight=False)


def _next_step(status: dict[str, Any]) -> str:
    states = {stage["state"] for stage in status["stages"].values()}
    if status["running"]:
        return "Wait for the run to end, or stop it with Ctrl-C there: it goes on from where it was."
    if states == {"up to date"}:
        return "Everything is up to date; `tldr report` prints the comparison."
    return "`tldr repro` runs what has changed and what depends on it, and goes on from partial work."
