"""The checkout that a command works on: its root, its stages, and the small files that say how a stage ended.

Reads and writes .tldr/last_exit.json {stage, exit_code, message, run} and .tldr/running.json {stage, pid, run}; in a
container both lie in .tldr/inside/<stage>/, where the process that started it reads them.
`run` is the id of the `tldr repro` that started the stage, null for a stage that was started by hand or by DVC.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from stages._errors import ContainerExit, UserError

STAGES = {
    "sample": "stages.sample",
    "label-by-length": "stages.label_by_length",
    "ratio-schedule": "stages.ratio_schedule",
    "train": "stages.train",
    "evaluate@base": "stages.evaluate",
    "evaluate@candidate": "stages.evaluate",
}
TABLES = ("results/questions/base.csv", "results/questions/candidate.csv")
CANDIDATE = TABLES[1]
GROUPS = ("evaluate",)  # a name that DVC takes for all items of a stage
RUN_ID = "TLDR_RUN_ID"
INSIDE = "TLDR_CONTAINER"  # set in a container that tldr started: the engine that runs it


def project_root() -> Path:
    """The nearest folder with a params.yaml, from the current one upwards; UserError if there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise UserError(f"There is no params.yaml in {here} or above it; run the command in a tldr checkout.")


def check_stage(name: str, *, groups: bool) -> None:
    """UserError unless `name` is a stage (or, with `groups`, the name of all its items)."""
    known = [*STAGES, *(GROUPS if groups else ())]
    if name in known:
        return
    import difflib

    near = difflib.get_close_matches(name.replace("_", "-"), known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"There is no stage {name!r}{hint}; the stages are {', '.join(known)}.")


def work_name(stage: str) -> str:
    """Name of the stage's folder in .tldr/work: evaluate-base for evaluate@base."""
    return stage.replace("@", "-")


def inside_folder(root: Path, stage: str) -> Path:
    """Where the process in a container says that it runs and how it ended."""
    return root / ".tldr" / "inside" / work_name(stage)


def read_state(root: Path, name: str) -> dict[str, Any]:
    """Contents of .tldr/`name`.json; empty if the file is missing or broken."""
    return read_record(root / ".tldr" / f"{name}.json")


def read_record(path: Path) -> dict[str, Any]:
    """Contents of a JSON object; empty if the file is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def running_stage(root: Path) -> dict[str, Any]:
    """Contents of .tldr/running.json if that process is alive, else empty."""
    state = read_state(root, "running")
    return state if is_alive(state.get("pid")) else {}


def is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class StageRecord:
    """Context manager round a stage: says that it runs while it runs, and how it ended."""

    def __init__(self, root: Path, stage: str) -> None:
        self._folder = inside_folder(root, stage) if INSIDE in os.environ else root / ".tldr"
        self._stage = stage
        self._run = os.environ.get(RUN_ID)

    def __enter__(self) -> None:
        self._write("running", {"stage": self._stage, "pid": os.getpid(), "run": self._run})

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code, message = _outcome(error)
        end = {"stage": self._stage, "exit_code": code, "message": message, "run": self._run}
        self._write("last_exit", end)
        with contextlib.suppress(OSError):
            (self._folder / "running.json").unlink(missing_ok=True)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        """A full disk must not hide why the stage ended, so this file is allowed to be missing."""
        from stages._io import write_json

        with contextlib.suppress(OSError):
            write_json(self._folder / f"{name}.json", value)


def _outcome(error: BaseException | None) -> tuple[int, str]:
    from stages.cli._exits import describe

    if error is None:
        return 0, ""
    if isinstance(error, ContainerExit):
        return int(str(error.code)), error.message
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else int(error.code is not None)), str(error.code or "")
    return describe(error)
