"""DVC in a child process: what must hold before it starts, the terminal and signals while it runs, its exit code after.

The terminal belongs to the child. Ctrl-C reaches DVC and the stage through the terminal: DVC ignores it while a stage
runs, the stage stops cleanly, and DVC returns. SIGTERM reaches this process only, which passes it to the stage.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

from stages._errors import EXIT_CTRL_C, EXIT_INTERRUPTED, EXIT_STAGE_FAILED, UserError
from stages._signals import handled
from stages.cli._exits import INSTALL
from stages.cli._project import RUN_ID, is_alive, read_state, running_stage

DVC = (sys.executable, "-P", "-m", "dvc")  # -P: no folder of the checkout can stand in for a library
DVC_INTERRUPTED = 252
FIRST_COMMIT = "`git init && git add -A && git commit -m start`"


def check_repository(root: Path, *, experiment: bool) -> None:
    """UserError unless DVC can run in `root`; `experiment`: also `dvc exp run`, which needs git and a commit."""
    import importlib.util

    if importlib.util.find_spec("dvc") is None:
        raise UserError(f"DVC is not installed in this Python; run `{INSTALL}`.")
    if not (root / "dvc.yaml").is_file():
        raise UserError(f"{root} has no dvc.yaml; run the command in a tldr checkout.")
    in_git = any((folder / ".git").exists() for folder in (root, *root.parents))
    dvc = dvc_folder(root)
    if dvc is None:
        first = "" if in_git else "git init && "
        raise UserError(f"DVC is not initialised in {root}; run `{first}dvc init` there.")
    if not in_git and experiment:
        raise UserError(f"-S runs are git-tracked experiments, and {root} is in no git repository; run {FIRST_COMMIT}.")
    if not in_git and not _without_git(dvc):
        raise UserError(
            f"{root} is in no git repository, which DVC needs; run {FIRST_COMMIT}, "
            "or do without by `dvc config core.no_scm true`."
        )
    if experiment and not _has_commit(root):
        raise UserError(f"-S runs need a first commit in {root}; run `git add -A && git commit -m start`.")


def dvc_folder(root: Path) -> Path | None:
    return next((folder / ".dvc" for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), None)


def _without_git(dvc: Path) -> bool:
    import configparser

    config = configparser.ConfigParser(strict=False, interpolation=None)
    config.read([dvc / "config", dvc / "config.local"], encoding="utf-8")
    return config.get("core", "no_scm", fallback="false").strip().lower() == "true"


def _has_commit(root: Path) -> bool:
    """Also true where the git program is missing: DVC brings its own implementation."""
    try:
        check = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "HEAD"], cwd=root, capture_output=True)
    except FileNotFoundError:
        return True
    return check.returncode == 0


def lock_holder(root: Path) -> str | None:
    """`process 4769: dvc repro` if a living DVC process is writing in this checkout."""
    dvc = dvc_folder(root)
    try:
        locks = json.loads(((dvc or root) / "tmp" / "rwlock").read_text(encoding="utf-8"))["write"]
        holders = [holder for holder in locks.values() if is_alive(holder["pid"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return f"process {holders[0]['pid']}: {holders[0]['cmd']}" if holders else None


def check_lock(root: Path) -> None:
    holder = lock_holder(root)
    if holder is not None:
        raise UserError(f"Another run is using {root} ({holder}); wait for it or stop it, then run again.")


def dvc_environment(run: str) -> dict[str, str]:
    """`python` in dvc.yaml must be this Python, also where its virtual environment is not activated."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, RUN_ID: run, "DVC_NO_ANALYTICS": "1"}


def run_dvc(root: Path, arguments: list[str]) -> int:
    """Run `dvc ARGUMENTS` on this terminal; exit code of the stage that failed, or 0."""
    run = uuid.uuid4().hex
    child: subprocess.Popen[bytes] | None = None
    terminated = False

    def wait(number: int, frame: FrameType | None) -> None:
        """The child decides when to stop."""

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        stage = running_stage(root)
        if stage.get("run") == run:
            os.kill(stage["pid"], signal.SIGTERM)
        elif child is not None:
            child.terminate()

    with handled({signal.SIGINT: wait, signal.SIGTERM: terminate}):
        child = subprocess.Popen([*DVC, *arguments], cwd=root, env=dvc_environment(run))
        code = child.wait()
    if code == 0:
        return EXIT_INTERRUPTED if terminated else 0
    return stage_exit_code(code, read_state(root, "last_exit"), run)


def stage_exit_code(dvc_code: int, last_exit: dict[str, Any], run: str) -> int:
    """DVC returns 255 whatever the stage returned: take the stage's own code if it ended in this run."""
    code = last_exit.get("exit_code")
    if last_exit.get("run") == run and isinstance(code, int) and code != 0:
        return code
    if dvc_code in (DVC_INTERRUPTED, -signal.SIGINT):
        return EXIT_CTRL_C
    return EXIT_INTERRUPTED if dvc_code == -signal.SIGTERM else EXIT_STAGE_FAILED
