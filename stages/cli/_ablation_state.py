"""The committed state that an ablation runs, and the clones it runs in.

Reads the git repository; writes under .tldr/ablation/: <state>/, where the runs of one code state are, and in it cache/, the
one DVC cache of all its clones. The state is a digest of what the stages depend on, so a commit that changes documentation only
keeps it.
"""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import digest, write_jsonl, write_text
from stages._params import Params, check_params
from stages._provenance import ENGINES, LIBRARIES
from stages.data.problems import Problem

FOLDER = Path(".tldr") / "ablation"
OUTPUTS = ("docs/ablation.md", "docs/ablation.svg")
TEST_SET = "data/ablation/test.jsonl"  # in a clone
MAX_NAMED = 5
FIRST_COMMIT = "`git init && git add -A && git commit -m start`"


@dataclass(frozen=True)
class State:
    """One committed state of the checkout `root`: its params.yaml, and `folder`, where its runs are stored."""

    root: Path
    commit: str
    document: dict[str, Any]
    params: Params
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


def read_state(root: Path, *, clean: bool) -> State:
    """The state that HEAD has; UserError where there is none, or with `clean` where the files here differ from it."""
    try:
        commit, prefix = _git(root, "rev-parse", "HEAD", "--show-prefix").splitlines()
    except (UserError, ValueError):
        raise UserError(
            f"An ablation runs the committed state, and {root} has no commit; run {FIRST_COMMIT}."
        ) from None
    if prefix:
        raise UserError(f"{root} is a part of another git repository; run the ablation in a clone of tldr itself.")
    if clean:
        _check_clean(root)
    document = _yaml(_git(root, "show", f"{commit}:params.yaml"))
    params = check_params(document, "params.yaml as committed")
    files = _git(root, "ls-tree", commit, "--", "dvc.yaml", *_dependencies(root, commit, document))
    name = digest({"files": files, "params": document, "python": platform.python_version(), "libraries": _libraries()})
    return State(root, commit, document, params, root / FOLDER / name)


def _check_clean(root: Path) -> None:
    """UserError if what would be cloned is not what is here; the ablation's own page does not count."""
    excluded = [f":(exclude){path}" for path in OUTPUTS]
    changed = [line[3:] for line in _git(root, "status", "--porcelain", "--", ".", *excluded).splitlines()]
    if changed:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise UserError(
            f"An ablation runs the committed state, and {', '.join(changed[:MAX_NAMED])}{more} "
            f"{'differs' if len(changed) == 1 else 'differ'} from it; commit or stash the changes first."
        )


def other_states(state: State) -> list[str]:
    """Code states of which there are runs as well; they are never mixed with those of `state`."""
    found = {path.parents[3].name for path in (state.root / FOLDER).glob("*/*/*/*/run.json")}
    return sorted(found - {state.name})


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[int]:
    """Within it no other ablation works in the checkout; the file descriptor of the lock, for children to hold it too."""
    import fcntl

    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with (root / FOLDER / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another ablation is at work in {root}, or runs of one that was killed are still ending; wait for it."
            ) from None
        yield stream.fileno()


@contextlib.contextmanager
def clone(state: State, name: str, document: dict[str, Any], fresh: list[Problem]) -> Iterator[Path]:
    """A clone of the committed state with `document` as its params.yaml, the fresh test set and the common DVC cache; gone
    after use. Without results/, so that what lies there at the end is of this run, or was put there for it."""
    folder = state.folder / "clones" / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _git(state.root, "clone", "-q", "--no-checkout", str(state.root), str(folder))
        _git(folder, "checkout", "-q", "--detach", state.commit)
        shutil.rmtree(folder / "results", ignore_errors=True)
        (folder / "results").mkdir()
        write_text(folder / "params.yaml", _json(document))
        write_jsonl(folder / TEST_SET, [_row(problem) for problem in fresh])
        config = f'[cache]\n    dir = "{state.folder / "cache"}"\n    type = "reflink,hardlink,copy"\n'
        write_text(folder / ".dvc" / "config.local", config)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_clones(state: State) -> None:
    """Those that a killed ablation left behind, of whatever state."""
    for folder in (state.root / FOLDER).glob("*/clones"):
        shutil.rmtree(folder, ignore_errors=True)


def _row(problem: Problem) -> dict[str, Any]:
    return vars(problem) | {"difficulty": int(problem.difficulty or 0)}


def _json(document: dict[str, Any]) -> str:
    """YAML as well; keys stay in order."""
    import json

    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _dependencies(root: Path, commit: str, document: dict[str, Any]) -> list[str]:
    """Paths that dvc.yaml lists as dependencies, its ${...} filled in from params.yaml; those of other stages fall out later,
    as git does not have them."""
    found: set[str] = {"containers/images.yaml"}
    for body in _yaml(_git(root, "show", f"{commit}:dvc.yaml"))["stages"].values():
        for dep in body.get("do", body)["deps"]:
            path = re.sub(r"\$\{([\w.]+)\}", lambda match: _value(document, match[1]), dep)
            if path:
                found.add(path)
    return sorted(found)


def _value(document: dict[str, Any], key: str) -> str:
    value: Any = document
    for part in key.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, str) else ""


def _libraries() -> dict[str, str]:
    found = {}
    for name in (*LIBRARIES, *ENGINES):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "core.quotepath=off", *arguments], cwd=folder, capture_output=True, encoding="utf-8"
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"git {arguments[0]} failed in {folder} ({lines[-1]}); correct that and run again.")
    return done.stdout
