"""`tldr gc`: what it lists, what it removes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stages.__main__ import main
from stages._work import mark_done, survey, work_folder
from stages.cli.gc import collect, measure, stage_folders
from stages.cli.status import partial_bytes

Tldr = Callable[..., "subprocess.CompletedProcess[str]"]
WORK = Path(".tldr", "work")


def make(root: Path, stage: str, seed: int, *, done: bool = False, size: int = 1000) -> Path:
    with work_folder(root, stage, {"seed": seed}, []) as folder:
        (folder / "step").mkdir(exist_ok=True)
        (folder / "step" / "log.jsonl").write_bytes(b"x" * size)
    if done:
        mark_done(folder)
    return folder


def gc(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["gc", *arguments], prog_name="tldr", env={"COLUMNS": "80"})


def listed(*arguments: str) -> dict[tuple[str, str], tuple[str, str]]:
    """{(stage, folder): (state, action)} of `tldr gc --json`."""
    answer = gc(*arguments, "--json")
    assert answer.exit_code == 0, answer.output
    folders = json.loads(answer.stdout)["folders"]
    return {(row["stage"], row["folder"]): (row["state"], row["action"]) for row in folders}


def test_nothing_to_do_is_said(checkout: Path) -> None:
    answer = gc()
    assert (answer.exit_code, answer.stdout) == (0, "There is nothing to remove in .tldr/work, 0 bytes freed.\n")
    assert not (checkout / ".tldr").exists()
    assert json.loads(gc("--json").stdout) == {"dry_run": False, "freed_bytes": 0, "folders": [], "others": []}


def test_outside_a_checkout_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gc().exit_code == 2


def test_finished_work_is_removed_and_unfinished_work_with_all_only(checkout: Path, tldr: Tldr) -> None:
    unfinished = make(checkout, "train", 1, size=2_000_000)
    finished = make(checkout, "evaluate-candidate", 1, done=True)
    names = ("evaluate-candidate", finished.name), ("train", unfinished.name)
    assert listed("--dry-run") == {names[0]: ("finished", "removable"), names[1]: ("unfinished", "kept")}
    assert finished.exists()
    num_bytes = measure(finished)[0]
    answer = tldr("gc", COLUMNS="80")
    assert (answer.returncode, answer.stderr) == (0, "")
    table, _, sentences = answer.stdout.partition("Removed ")
    assert sentences == (
        f"1 folder, {num_bytes:,} bytes freed.\n"
        f"Unfinished work is kept (1 folder, {measure(unfinished)[0]:,} bytes): `tldr gc --all` removes it.\n"
    )
    (row,) = [line for line in table.splitlines() if line.startswith("train")]
    assert row.split()[:5] == ["train", unfinished.name[:8], "unfinished", "2.0", "MB"] and row.rstrip().endswith(
        "kept"
    )
    assert (finished.exists(), unfinished.exists()) == (False, True)
    assert listed("--all", "--dry-run") == {names[1]: ("unfinished", "removable")} and unfinished.exists()
    assert listed("--all") == {names[1]: ("unfinished", "removed")}
    assert sorted(path.name for path in (checkout / WORK).glob("*/*")) == []
    assert listed("--all") == {}


def test_json_says_what_a_folder_was_made_by(checkout: Path) -> None:
    folder = make(checkout, "train", 7)
    os.utime(folder / "step" / "log.jsonl", (2_000_000_000, 2_000_000_000))
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    document = json.loads(gc("--json", "--dry-run", "--all").stdout)
    assert document == {
        "dry_run": True,
        "freed_bytes": num_bytes,
        "folders": [
            {
                "stage": "train",
                "folder": folder.name,
                "state": "unfinished",
                "num_bytes": num_bytes,
                "changed": "2033-05-18T03:33:20+00:00",
                "action": "removable",
                "settings": {"seed": 7},
                "image": None,
            }
        ],
        "others": [],
    }


def test_work_in_use_is_never_removed(checkout: Path) -> None:
    for seed, done in ((1, False), (2, True)):
        with work_folder(checkout, "train", {"seed": seed}, []) as folder:
            if done:
                mark_done(folder)
            answer = gc("--all")
            assert answer.exit_code == 0
            assert f".tldr/work/train/{folder.name} is in use by a run and is kept." in answer.stdout
            assert listed("--all") == {("train", folder.name): ("in use", "kept")}
        assert listed("--all") == {("train", folder.name): ("finished" if done else "unfinished", "removed")}


def test_unfinished_work_of_the_stage_that_runs_is_kept(checkout: Path) -> None:
    """Its lock may be invisible: it is held in a container behind a virtual machine."""
    base, candidate = (make(checkout, f"evaluate-{which}", 1) for which in ("base", "candidate"))
    running = {"stage": "evaluate@base", "pid": os.getpid(), "run": None}
    (checkout / ".tldr" / "running.json").write_text(json.dumps(running))
    assert "its stage is running" in gc("--all").stdout
    assert (base.exists(), candidate.exists()) == (True, False)
    (checkout / ".tldr" / "running.json").unlink()
    assert listed("--all") == {("evaluate-base", base.name): ("unfinished", "removed")}


def test_a_removal_that_was_cut_short_is_ended(checkout: Path) -> None:
    folder = make(checkout, "train", 1)
    (aside,) = survey(folder.parent, ("unfinished",))
    (aside.path / "step" / "log.jsonl").unlink()
    assert listed("--dry-run") == {("train", folder.name): ("left over", "removable")}
    assert partial_bytes(checkout, "train") == 0
    assert listed() == {("train", folder.name): ("left over", "removed")}
    assert not aside.path.exists()


def test_links_are_not_followed_and_files_are_left_alone(checkout: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "work").mkdir(parents=True)
    (outside / "work" / "done").write_bytes(b"x" * 500)
    folder = make(checkout, "train", 1, done=True)
    (folder / "inside").symlink_to(outside)
    (folder.parent / "other").symlink_to(outside / "work")
    (checkout / WORK / "sample").symlink_to(outside)
    (checkout / WORK / "notes.txt").write_text("mine")
    (folder.parent / "notes.txt").write_text("mine")
    assert measure(folder)[0] < 1500, "links count as links"
    answer = gc("--all")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[-1] == (
        "Left alone, no folder of a stage: .tldr/work/notes.txt, .tldr/work/sample, .tldr/work/train/notes.txt, "
        ".tldr/work/train/other."
    )
    assert not folder.exists()
    assert (outside / "work" / "done").exists()
    assert partial_bytes(checkout, "train") == 0 and partial_bytes(checkout, "sample") == 0


def test_what_cannot_be_checked_is_kept(checkout: Path) -> None:
    folder = make(checkout, "train", 1)
    (folder / "lock").unlink()
    (folder / "lock").mkdir()
    answer = gc("--all")
    assert answer.exit_code == 0
    assert f".tldr/work/train/{folder.name} is kept: whether a run uses it cannot be found out" in answer.stdout
    assert listed("--all") == {("train", folder.name): ("unknown", "kept")}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and remove everything")
def test_what_may_not_be_read_or_removed_is_said(checkout: Path) -> None:
    closed, frozen, plain = (make(checkout, "train", seed) for seed in (1, 2, 3))
    stage = make(checkout, "sample", 1).parent
    closed.chmod(0)
    stage.chmod(0)
    (frozen / "step").chmod(0o500)
    try:
        answer = gc("--all")
        kept = [line.partition(" is kept: whether")[0] for line in answer.stdout.splitlines() if " is kept: wh" in line]
        assert kept == [".tldr/work/sample", f".tldr/work/train/{closed.name}"]
        assert answer.exit_code == 2
        assert answer.stderr.startswith(f"Error: Not everything in .tldr/work/train/{frozen.name} could be removed; ")
        assert not plain.exists()
        assert partial_bytes(checkout, "sample") == 0
    finally:
        for path in (closed, stage, *stage.parent.glob("train/.removed-*/step")):
            path.chmod(0o700)
    assert set(listed("--all").values()) == {("unfinished", "removed"), ("left over", "removed")}


def test_a_folder_that_vanishes_meanwhile_is_no_row(checkout: Path) -> None:
    gone = checkout / WORK / "train"
    assert collect(gone, ("finished",), dry_run=False) == []
    assert measure(gone) == (0, 0.0)
    assert stage_folders(checkout) == []


def test_a_dry_run_changes_nothing(checkout: Path) -> None:
    folder = checkout / WORK / "train" / "former"
    folder.mkdir(parents=True)
    (folder / "done").write_text("")
    before = {path: path.stat().st_mtime_ns for path in (checkout / ".tldr").rglob("*")}
    assert listed("--dry-run", "--all") == {("train", "former"): ("finished", "removable")}
    assert {path: path.stat().st_mtime_ns for path in (checkout / ".tldr").rglob("*")} == before


def test_status_counts_unfinished_work_of_whichever_parameters(checkout: Path) -> None:
    folders = [make(checkout, "train", seed) for seed in (1, 2)]
    make(checkout, "train", 3, done=True)
    assert partial_bytes(checkout, "train") == sum(measure(folder)[0] for folder in folders) > 2000
    shards = [make(checkout, f"sample-shard-{index}-of-2", 1) for index in range(2)]
    assert partial_bytes(checkout, "sample") == sum(measure(folder)[0] for folder in shards) > 2000
