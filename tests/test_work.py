"""Partial work of a stage: which folder, held by one run at a time, released by a kill, removed when it is finished."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from stages._errors import UserError
from stages._work import (
    ASIDE,
    FINISHED,
    IN_USE,
    LEFT_OVER,
    UNFINISHED,
    UNKNOWN,
    mark_done,
    survey,
    work_folder,
    work_path,
)
from tests.paths import ROOT

# Takes the folder of seed 1 and says so; holds it until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from stages._work import work_folder
with work_folder(Path(sys.argv[1]), "train", {"seed": 1}, []) as folder:
    (folder / "log.jsonl").write_text("{}")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(root: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Name of the folder of seed 1, and the process that holds it."""
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        yield holder.stdout.readline().strip(), holder
        holder.kill()


def base(root: Path) -> Path:
    return root / ".tldr" / "work" / "train"


def states(root: Path) -> dict[str, str]:
    return {work.name: work.state for work in survey(base(root))}


def test_the_same_parameters_and_inputs_go_on_in_the_same_folder(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("a")
    with work_folder(tmp_path, "train", {"seed": 1}, [source]) as first:
        (first / "log.jsonl").write_text("{}")
    with work_folder(tmp_path, "train", {"seed": 2}, [source]) as other:
        assert other != first and not (other / "log.jsonl").exists()
    source.write_text("b")
    with work_folder(tmp_path, "train", {"seed": 1}, [source]) as changed:
        assert changed not in (first, other)
    source.write_text("a")
    with work_folder(tmp_path, "train", {"seed": 1}, [source]) as again:
        assert again == first == work_path(tmp_path, "train", {"seed": 1}, [source])
        assert (again / "log.jsonl").read_text() == "{}", "work of former parameters is kept"


def test_the_path_alone_makes_and_removes_nothing(tmp_path: Path) -> None:
    path = work_path(tmp_path, "train", {"seed": 1}, [])
    assert not base(tmp_path).exists()
    with work_folder(tmp_path, "train", {"seed": 1}, []) as folder:
        mark_done(folder)
    assert work_path(tmp_path, "train", {"seed": 1}, []) == path == folder and folder.exists()


def test_a_folder_says_what_it_was_made_by(tmp_path: Path) -> None:
    with work_folder(tmp_path, "train", {"seed": 1}, []) as folder:
        made_by = json.loads((folder / "made_by.json").read_text())
        written = (folder / "made_by.json").stat().st_mtime_ns
    assert (made_by["settings"], made_by["inputs"], made_by["image"]) == ({"seed": 1}, {}, None)
    with work_folder(tmp_path, "train", {"seed": 1}, []):
        assert (folder / "made_by.json").stat().st_mtime_ns == written, "going on is no change"


def test_finished_work_is_removed_when_a_run_starts_and_unfinished_work_is_not(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        with work_folder(tmp_path, "train", {"seed": seed}, []) as folder:
            (folder / "log.jsonl").write_text("{}")
    for seed in (1, 2):
        with work_folder(tmp_path, "train", {"seed": seed}, []) as folder:
            mark_done(folder)
    assert sorted(states(tmp_path).values()) == [FINISHED, UNFINISHED], "the start of seed 2 removed seed 1"
    with work_folder(tmp_path, "train", {"seed": 2}, []) as folder:
        assert not (folder / "log.jsonl").exists(), "a run that ended well is not gone on from"
        assert sorted(states(tmp_path).values()) == [IN_USE, UNFINISHED]
    assert not list(base(tmp_path).glob(f"{ASIDE}*"))


def test_one_run_at_a_time_holds_a_folder_until_it_is_killed(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as (name, holder):
        assert states(tmp_path) == {name: IN_USE}
        with (
            pytest.raises(
                UserError, match=rf"^\.tldr/work/train/{name} is in use by another run of train; wait .*again\.$"
            ),
            work_folder(tmp_path, "train", {"seed": 1}, []),
        ):
            pytest.fail("taken twice")
        with work_folder(tmp_path, "train", {"seed": 2}, []):
            pass
        assert (base(tmp_path) / name / "log.jsonl").exists()
        holder.kill()
        holder.wait()
        with work_folder(tmp_path, "train", {"seed": 1}, []) as folder:
            assert (folder.name, (folder / "log.jsonl").read_text()) == (name, "{}")


def test_what_is_finished_and_still_held_is_not_removed(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as (name, _):
        mark_done(base(tmp_path) / name)
        with work_folder(tmp_path, "train", {"seed": 2}, []):
            assert states(tmp_path)[name] == IN_USE
        assert [work.path.name for work in survey(base(tmp_path), (FINISHED,)) if work.name == name] == [name]


def test_a_folder_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), work_folder(tmp_path, "train", {"seed": 1}, []):
        raise ZeroDivisionError
    assert list(states(tmp_path).values()) == [UNFINISHED]


def test_a_removal_that_was_cut_short_is_ended_by_the_next_run(tmp_path: Path) -> None:
    with work_folder(tmp_path, "train", {"seed": 1}, []) as folder:
        (folder / "log.jsonl").write_text("{}")
    (aside,) = survey(base(tmp_path), (UNFINISHED,))
    assert (aside.name, aside.path.parent, folder.exists()) == (folder.name, folder.parent, False)
    assert [work.state for work in survey(base(tmp_path), (UNFINISHED,))] == [LEFT_OVER], "it is never set aside twice"
    with work_folder(tmp_path, "train", {"seed": 1}, []) as again:
        assert again == folder and not (again / "log.jsonl").exists()
        assert not aside.path.exists()


def test_links_and_files_are_no_work(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    mark_done(outside)
    base(tmp_path).mkdir(parents=True)
    (base(tmp_path) / "link").symlink_to(outside)
    (base(tmp_path) / "notes.txt").write_text("mine")
    with work_folder(tmp_path, "train", {"seed": 1}, []) as folder:
        assert states(tmp_path) == {folder.name: IN_USE}
    assert (outside / "done").exists() and (base(tmp_path) / "link").is_symlink()


def test_where_a_lock_cannot_be_asked_only_the_mark_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with work_folder(tmp_path, "train", {"seed": 1}, []) as folder:
        assert states(tmp_path) == {folder.name: UNKNOWN}
        mark_done(folder)
    with work_folder(tmp_path, "train", {"seed": 1}, []) as again:
        assert again == folder and not (again / "done").exists()


def test_a_folder_is_made_and_removed_while_nobody_else_does(tmp_path: Path) -> None:
    def take() -> None:
        with work_folder(tmp_path, "train", {"seed": 1}, []):
            pass

    base(tmp_path).mkdir(parents=True)
    descriptor = os.open(base(tmp_path), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        waiting = [Thread(target=take), Thread(target=survey, args=(base(tmp_path),))]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join(0.5)
            assert thread.is_alive()
        assert not list(base(tmp_path).iterdir())
    finally:
        os.close(descriptor)
    for thread in waiting:
        thread.join()
    assert list(states(tmp_path).values()) == [UNFINISHED]


# Takes a folder of one of two seeds many times; whoever holds it finds what it wrote, whatever others remove.
TAKER = """
import sys
from pathlib import Path
from stages._errors import UserError
from stages._work import mark_done, work_folder
root, seed, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
taken = refused = 0
for index in range(times):
    try:
        with work_folder(root, "train", {"seed": seed}, []) as folder:
            (folder / "mine").write_text(f"{seed} {index}")
            for _ in range(200):
                assert (folder / "mine").read_text() == f"{seed} {index}"
            if index % 2:
                mark_done(folder)
            taken += 1
    except UserError:
        refused += 1
    print(taken, refused, flush=True)
"""


def test_runs_and_removals_at_the_same_time_never_meet(tmp_path: Path) -> None:
    """Two runs share a seed and may refuse each other, a third has its own and is never refused."""
    base(tmp_path).mkdir(parents=True)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(tmp_path), str(seed), "30"], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for seed in (1, 1, 2)
    ]
    removed = 0
    assert runs[2].stdout is not None
    lines = []
    for line in runs[2].stdout:
        lines.append(line)
        for work in (work for _ in range(5) for work in survey(base(tmp_path), (FINISHED, UNFINISHED))):
            if work.path.name.startswith(ASIDE):
                shutil.rmtree(work.path, ignore_errors=True)
                removed += 1
    shared = [run.communicate()[0].split()[-2:] for run in runs[:2]]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert lines == [f"{taken} 0\n" for taken in range(1, 31)]
    assert all(int(taken) > 0 and int(taken) + int(refused) == 30 for taken, refused in shared)
    assert removed > 10
