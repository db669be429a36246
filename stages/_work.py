"""Partial work of a stage: a folder outside DVC's outputs that a killed run goes on from.

`.tldr/work/<stage>/<fingerprint>/`, where the fingerprint covers everything that the answers or weights in it depend on.
Going back to former parameters goes on from their folder. One that is marked done belongs to a run that ended well: the
next run of the stage removes it. A folder is made, taken and renamed away under a lock on `.tldr/work/<stage>`, held for
an instant, and a run holds the file `lock` in its folder for as long as it lasts. Both lie in what a container of the
stage has mounted; the kernel releases them, however a process (and what it forked) ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from stages._errors import UserError
from stages._io import digest, file_digest, folder_digest, write_json, write_text
from stages._provenance import current_image

DONE, LOCK, MADE_BY = "done", "lock", "made_by.json"
ASIDE = ".removed-"  # a fingerprint never begins like this
FINISHED, UNFINISHED, IN_USE, UNKNOWN, LEFT_OVER = "finished", "unfinished", "in use", "unknown", "left over"


class Work(NamedTuple):
    """A folder of partial work: its fingerprint, its state when it was looked at, and where it lies since."""

    name: str
    state: str
    path: Path


@contextlib.contextmanager
def work_folder(root: Path, stage: str, settings: dict[str, Any], inputs: Iterable[Path]) -> Iterator[Path]:
    """The folder to go on in, made if need be and held while the block runs; UserError if another run holds it.

    `inputs` are files or flat folders, hashed by content; so are the code of stages/ and the image.
    """
    made_by = _made_by(root, settings, inputs)
    base = _base(root, stage)
    folder = base / digest(made_by)
    base.mkdir(parents=True, exist_ok=True)
    with _alone(base):
        former = _survey(base, (FINISHED,))
        folder.mkdir(exist_ok=True)
        lock = _lock(folder)
    if lock is None:
        raise UserError(
            f"{folder.relative_to(root)} is in use by another run of {stage}; wait until it has ended or stop it, and run "
            "again."
        )
    with lock:
        for work in former:
            if work.path.name.startswith(ASIDE):
                shutil.rmtree(work.path, ignore_errors=True)  # what is left of it is for `tldr gc`
        if not (folder / MADE_BY).exists():
            write_json(folder / MADE_BY, {**made_by, "code": digest(made_by["code"])})
        yield folder


def work_path(root: Path, stage: str, settings: dict[str, Any], inputs: Iterable[Path]) -> Path:
    """The folder of `work_folder` with the same arguments, neither made nor held: for a process that helps whoever holds it."""
    return _base(root, stage) / digest(_made_by(root, settings, inputs))


def _base(root: Path, stage: str) -> Path:
    return root / ".tldr" / "work" / stage


def _made_by(root: Path, settings: dict[str, Any], inputs: Iterable[Path]) -> dict[str, Any]:
    """What the fingerprint covers. Paths are relative to the checkout, which machines may have mounted at other places."""
    contents = {
        os.path.relpath(path, root): folder_digest(path) if path.is_dir() else file_digest(path) for path in inputs
    }
    code = {str(path.relative_to(CODE)): file_digest(path) for path in sorted(CODE.rglob("*.py"))}
    return {"settings": settings, "inputs": contents, "code": code, "image": current_image()}


def mark_done(folder: Path) -> None:
    """Say that the stage's outputs are in place, so that the next run does not reuse this work."""
    write_text(folder / DONE, "")


def survey(base: Path, set_aside: Collection[str] = ()) -> list[Work]:
    """What lies in `base`, the `.tldr/work/<stage>` of a stage. A folder in one of the states `set_aside` is renamed to a
    name that is never taken for work, from which it can be removed at leisure; only FINISHED and UNFINISHED may be."""
    assert set(set_aside) <= {FINISHED, UNFINISHED}
    with _alone(base):
        return _survey(base, set_aside)


def _survey(base: Path, set_aside: Collection[str]) -> list[Work]:
    found = []
    for folder in sorted(base.iterdir()):
        if folder.is_symlink() or not folder.is_dir():
            continue
        if folder.name.startswith(ASIDE):
            found.append(Work(folder.name.removeprefix(ASIDE).partition("-")[0], LEFT_OVER, folder))
            continue
        state, path = _state(folder), folder
        if state in set_aside:
            path = base / f"{ASIDE}{folder.name}-{uuid.uuid4().hex[:8]}"
            try:
                folder.rename(path)
            except FileNotFoundError:  # somebody removed it by hand
                continue
        found.append(Work(folder.name, state, path))
    return found


def _state(folder: Path) -> str:
    """UNKNOWN where the lock cannot be asked: no permission, or a disk that knows no locks."""
    finished = False
    try:
        finished = (folder / DONE).exists()
        with contextlib.suppress(FileNotFoundError), (folder / LOCK).open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return IN_USE
    except PermissionError:
        return UNKNOWN
    except OSError:
        return FINISHED if finished else UNKNOWN  # without locks the mark must do: it is written last
    return FINISHED if finished else UNFINISHED


def _lock(folder: Path) -> IO[bytes] | None:
    """Hold `folder` until the stream is closed; None if another process does."""
    stream = (folder / LOCK).open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    except OSError:
        pass  # the disk knows no locks
    return stream


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """No other process makes, takes or renames a folder of `base`; the lock is on the folder itself, no file needed."""
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # the disk knows no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


CODE = Path(__file__).resolve().parent
