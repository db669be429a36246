"""`tldr ablate` with real git and DVC over toy stages: what runs, what does not run again, and what a stop leaves."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.ablation.conftest import commit, start

pytestmark = pytest.mark.dvc


def ran(toy: Path, stage: str) -> list[str]:
    """ "share seed" of every time that the stage ran, in order of time."""
    lines = (toy / "log").read_text().splitlines() if (toy / "log").exists() else []
    return [line.split(" ", 1)[1] for line in lines if line.startswith(f"{stage} ")]


def seeds_of(runs: list[str]) -> list[str]:
    return sorted(run.split()[1] for run in runs)


def state_folder(checkout: Path) -> Path:
    (folder,) = (path.parent for path in (checkout / ".tldr" / "ablation").glob("*/cache"))
    return folder


def stored(checkout: Path) -> set[str]:
    folder = state_folder(checkout)
    return {str(path.parent.relative_to(folder)) for path in folder.glob("*/*/*/run.json")}


def leftovers(checkout: Path) -> list[Path]:
    return [*(checkout / ".tldr" / "ablation").glob("*/clones"), *checkout.rglob("*.tmp")]


def one_seed(checkout: Path) -> None:
    plan = (checkout / "ablation.yaml").read_text()
    (checkout / "ablation.yaml").write_text(plan.replace("[1, 2]", "[1]").replace("[3, 4]", "[3]"))
    commit(checkout, "one seed")


def test_from_tuning_to_the_page_nothing_runs_twice(checkout, toy, ablate):
    ablate("tune")
    assert sorted(ran(toy, "train")) == ["0.0 1", "0.0 2", "1.0 1", "1.0 2"]
    assert seeds_of(ran(toy, "sample")) == ["1", "2"]
    page = (checkout / "docs" / "ablation.md").read_text()
    assert "Nothing is reported yet" in page and "sample 2, label-by-length 2, train 4" in page
    ablate("report")
    for stage in ("sample", "label_by_length", "evaluate-base"):
        assert seeds_of(ran(toy, stage))[-2:] == ["3", "4"], f"{stage} runs once per seed"
    assert sorted(ran(toy, "evaluate-candidate")) == ["0.0 3", "0.0 4", "1.0 3", "1.0 4"]
    page = (checkout / "docs" / "ablation.md").read_text()
    # "all" uses 80 - 20 + seed + 1 of 160 tokens on the test set with seeds 3 and 4, "none" 20 more
    assert "| **all** | 2 | 64.5 [58.1, 70.9] | 59.7 [55.7, 63.7] |" in page
    assert "| none | 2 | 84.5 [78.1, 90.9] | 47.2 [43.2, 51.2] |" in page
    assert "+20.0 [+20.0, +20.0], p < 0.001" in page
    assert "none (other static) differs from all: 20.0 more tokens per answer (shown, p < 0.001)" in page
    assert "sample 2, label-by-length 2, evaluate@base 2, train 4, evaluate@candidate 4" in page
    before = {path: path.read_bytes() for path in (toy / "log", *(checkout / "docs").iterdir())}
    again = ablate("report")
    assert "0 of 6 runs are missing" in again.stderr
    assert {path: path.read_bytes() for path in before} == before and len(before) == 3
    assert leftovers(checkout) == []


def test_runs_of_other_settings_or_of_another_code_state_are_not_taken_for_those_of_this(checkout, toy, ablate):
    one_seed(checkout)
    ablate("report", "--allow-missing")
    metrics = json.loads((state_folder(checkout) / "report" / "all" / "3" / "results" / "metrics.json").read_text())
    committed = (checkout / "data" / "tiny" / "test.jsonl").read_text().splitlines()
    assert metrics["baseline_num_questions"] == len(committed), "the fresh test set is as large as the committed one"
    commit(checkout, "the page itself")
    assert ablate("report", "--dry-run").stdout == ""
    plan = (checkout / "ablation.yaml").read_text()
    (checkout / "ablation.yaml").write_text(plan.replace("init: 1.0", "init: 0.75"))
    assert ablate("report", "--dry-run").stdout.splitlines() == ["report all, seed 3"]
    (checkout / "ablation.yaml").write_text(plan.replace("test_seed: 5", "test_seed: 6"))
    assert len(ablate("report", "--dry-run").stdout.splitlines()) == 3
    (checkout / "ablation.yaml").write_text(plan)
    stage = checkout / "stages" / "train.py"
    stage.write_text(stage.read_text() + "# another state\n")
    commit(checkout, "another state")
    dry = ablate("report", "--dry-run").stderr
    assert "3 of 3 runs are missing" in dry and "runs of different code states are never mixed" in dry
    assert "which are never mixed with it. Run `tldr ablate tune`" in ablate("table", code=2).stderr


def test_an_arm_that_the_tuning_does_not_choose_is_reported_without_it(checkout, toy, ablate):
    plan = (checkout / "ablation.yaml").read_text()
    (checkout / "ablation.yaml").write_text(
        plan.replace("variants:", "  up: {schedule: linear, init: 0.0, final: 1.0}\nvariants:")
    )
    one_seed(checkout)
    assert "up" not in ablate("tune", "--dry-run").stdout
    assert "report up, seed 3" in ablate("report", "--dry-run").stdout.splitlines()


def test_a_failed_run_leaves_the_others_and_is_run_again(checkout, toy, ablate):
    one_seed(checkout)
    before = ablate("tune", "--dry-run")
    assert before.stdout.splitlines() == ["tune shared stages, seed 1", "tune none, seed 1", "tune all, seed 1"]
    assert "minutes" not in before.stderr and not (toy / "log").exists()
    (toy / "fail-train-0.0").touch()
    failed = ablate("tune", code=1)
    assert "1 of 3 runs failed, first tune none, seed 1 (train ended with exit code 1: The toy found" in failed.stderr
    assert stored(checkout) == {"tune/_shared/1", "tune/all/1"} and leftovers(checkout) == []
    assert "Traceback" not in failed.stderr
    after = ablate("tune", "--dry-run")
    assert after.stdout.splitlines() == ["tune none, seed 1"]
    assert "1 run of an arm took" in after.stderr and "1 more at 1 a time" in after.stderr
    assert "1 tuning run is missing (first tune none, seed 1)" in ablate("report", code=2).stderr
    (toy / "fail-train-0.0").unlink()
    ablate("tune")
    assert ran(toy, "train") == ["0.0 1", "1.0 1", "0.0 1"] and len(ran(toy, "sample")) == 1


def test_arms_of_a_seed_whose_shared_stages_fail_are_not_tried(checkout, toy, ablate):
    one_seed(checkout)
    (toy / "fail-sample-0.0").touch()
    failed = ablate("tune", code=1)
    assert "1 of 3 runs failed, first tune shared stages, seed 1" in failed.stderr
    assert ran(toy, "train") == []


def waiting(checkout: Path, toy: Path) -> subprocess.Popen[str]:
    """`tldr ablate tune` while it trains the second arm, which does not go on by itself."""
    process = start(checkout, toy, "tune")
    (toy / "wait-train-1.0").open().close()  # returns once the stage has opened it too
    return process


@pytest.fixture
def pipes(toy: Path) -> None:
    os.mkfifo(toy / "wait-train-1.0")
    os.mkfifo(toy / "go-on")


@pytest.mark.usefixtures("pipes")
def test_a_stop_ends_the_children_keeps_what_is_done_and_is_gone_on_from(checkout, toy, ablate):
    one_seed(checkout)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        process = waiting(checkout, toy)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code and "run the same command again" in err and "Traceback" not in err
        assert stored(checkout) == {"tune/_shared/1", "tune/none/1"} and leftovers(checkout) == []
        with (checkout / ".tldr" / "ablation" / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while any child lives
    (toy / "wait-train-1.0").unlink()
    ablate("tune")
    assert ran(toy, "train") == ["0.0 1", "1.0 1", "1.0 1", "1.0 1"] and len(ran(toy, "sample")) == 1


@pytest.mark.usefixtures("pipes")
def test_after_a_kill_its_children_are_waited_for_and_its_clones_removed(checkout, toy, ablate):
    one_seed(checkout)
    process = waiting(checkout, toy)
    process.kill()
    process.communicate(timeout=60)
    assert "Another ablation is at work" in ablate("tune", code=2).stderr
    (toy / "wait-train-1.0").unlink()
    (toy / "go-on").open("w").close()
    with (checkout / ".tldr" / "ablation" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # returns when DVC of the killed ablation has ended
    assert leftovers(checkout) != []
    ablate("tune")
    assert leftovers(checkout) == []
    assert ran(toy, "train").count("0.0 1") == 1, "what was stored before the kill is not run again"


def test_what_is_not_committed_is_refused(checkout, toy, ablate):
    (checkout / "params.yaml").write_text((checkout / "params.yaml").read_text() + "# a remark\n")
    assert "params.yaml differs from it; commit or stash" in ablate("tune", code=2).stderr
    (checkout / ".git").rename(checkout / ".former")
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    assert "has no commit; run `git init && git add -A" in ablate("tune", code=2).stderr
    assert not (toy / "log").exists()
