"""`tldr run STAGE` on toy stages: exit codes, the record of how the stage ended, signals, bad parameters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.cli._project import STAGES

Tldr = Callable[..., "subprocess.CompletedProcess[str]"]


def last_exit(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / ".tldr" / "last_exit.json").read_text())
    return record


@pytest.mark.parametrize("stage", ["label-by-length", "evaluate@candidate"])
def test_a_stage_runs_with_its_parameters_and_offline(checkout: Path, tldr: Tldr, stage: str) -> None:
    answer = tldr("run", stage)
    assert (answer.returncode, answer.stdout) == (0, "")
    assert answer.stderr == f"{stage}: container engine host, device cpu\n"
    assert (checkout / "artifacts" / f"{stage}.txt").read_text() == f"{stage} 1 0.5 1"
    assert last_exit(checkout) == {"stage": stage, "exit_code": 0, "message": "", "run": None}
    assert not (checkout / ".tldr" / "running.json").exists()


def test_a_further_machine_leaves_the_records_of_the_first(
    checkout: Path, tldr: Tldr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINE_RANK", "0")
    assert tldr("run", "train").returncode == 0
    records = {path: path.read_bytes() for path in (checkout / ".tldr").glob("*.json")}
    assert [path.name for path in records] == ["last_exit.json"]
    monkeypatch.setenv("MACHINE_RANK", "1")
    (checkout / "behaviour.txt").write_text("train fail")
    assert tldr("run", "train").returncode == 1
    assert {path: path.read_bytes() for path in (checkout / ".tldr").glob("*.json")} == records
    assert tldr("run", "train", TLDR_RUN_ID="r").returncode == 1  # `tldr repro` reads how its own stage ended
    assert last_exit(checkout) == {**last_exit(checkout), "exit_code": 1, "run": "r"}


@pytest.mark.parametrize(
    ("behaviour", "code", "part"),
    [
        ("user", 2, "Error: The toy was given a bad file; give it a good one."),
        ("fail", 1, "Error: The toy found something wrong; look at it."),
        ("bug", 70, "Error: This is a bug in tldr (KeyError: 'toy')"),
        ("full", 1, "Error: The disk is full: free some space and run again"),
        ("gpu", 1, "Error: Out of GPU memory: lower engine.batch_size"),
        ("exit", 3, ""),
    ],
)
def test_each_failure_has_its_code_and_one_sentence(
    checkout: Path, tldr: Tldr, behaviour: str, code: int, part: str
) -> None:
    (checkout / "behaviour.txt").write_text(f"sample {behaviour}")
    answer = tldr("run", "sample")
    assert answer.returncode == code
    assert part in answer.stderr
    assert "Traceback" not in answer.stderr
    record = last_exit(checkout)
    assert record["exit_code"] == code
    assert record["message"] in answer.stderr or behaviour == "exit"
    assert not (checkout / "artifacts").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("sample", "--shard", "4/4"), "--shard is I/N with 0 <= I < N, such as 0/4 for the first of four; not '4/4'."),
        (("sample", "--shard", "first"), "not 'first'."),
        (("train", "--shard", "0/2"), "--shard goes with sample, evaluate (evaluate@base, ...); train is one piece."),
        (("evaluate", "--task", "tiny", "--shard", "0/2"), "--shard goes with a stage, not with --task."),
    ],
)
def test_a_shard_that_makes_no_sense_is_refused(
    checkout: Path, tldr: Tldr, arguments: tuple[str, ...], part: str
) -> None:
    answer = tldr("run", *arguments)
    assert answer.returncode == 2
    assert part in answer.stderr
    assert not (checkout / ".tldr").exists()


def test_a_shard_starts_no_container(checkout: Path, tldr: Tldr) -> None:
    text = (checkout / "params.yaml").read_text()
    (checkout / "params.yaml").write_text(text.replace("engine: host", "engine: docker", 1))
    answer = tldr("run", "sample", "--shard", "0/2")
    assert answer.returncode == 2
    assert (
        "container.engine is docker, and a shard starts no container; start the job inside the image" in answer.stderr
    )


def test_debug_shows_the_traceback(checkout: Path, tldr: Tldr) -> None:
    (checkout / "behaviour.txt").write_text("sample bug")
    answer = tldr("run", "sample", TLDR_DEBUG="1")
    assert answer.returncode == 70
    assert "Traceback" in answer.stderr
    assert "sample.py" in answer.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_stop_a_stage_cleanly(checkout: Path, number: signal.Signals, code: int) -> None:
    (checkout / "behaviour.txt").write_text("train sleep")
    command = [sys.executable, "-m", "stages", "run", "train"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as stage:
        wait_for(checkout / "ready")
        assert json.loads((checkout / ".tldr" / "running.json").read_text())["pid"] == stage.pid
        stage.send_signal(number)
        _, errors = stage.communicate(timeout=20)
    assert stage.returncode == code
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert last_exit(checkout)["exit_code"] == code
    assert not (checkout / "artifacts").exists()


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["nosuch", "evaluate", "label_by_length", ""])
def test_an_unknown_stage_lists_the_stages(checkout: Path, tldr: Tldr, name: str) -> None:
    answer = tldr("run", name)
    assert answer.returncode == 2
    assert ", ".join(STAGES) in answer.stderr
    assert not (checkout / ".tldr").exists()


def test_a_near_name_is_suggested(checkout: Path, tldr: Tldr) -> None:
    assert "(did you mean label-by-length?)" in tldr("run", "label_by_lenght").stderr


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("seed: 1  ", "seed: one  ", "seed = 'one'"),
        ("temperature: 1.0", "temperature: -1", "decode.temperature = -1"),
        ("batch_size: 32 ", "batch_size: 2.5 ", "train.batch_size = 2.5"),
        ("eta: 4.0", "eta: .nan", "ratio.eta = nan"),
        ("eta: 4.0", "etta: 4.0", "unknown key ratio.etta"),
        ("controller: robust", "controller: fast", "ratio.controller = 'fast'"),
        ("engine: host", "engine: dokcer", "container.engine = 'dokcer'"),
        ("seed: 1  ", "seed: [1  ", "params.yaml is not valid YAML"),
    ],
)
def test_bad_parameters_are_named(checkout: Path, tldr: Tldr, old: str, new: str, part: str) -> None:
    text = (checkout / "params.yaml").read_text()
    assert old in text
    (checkout / "params.yaml").write_text(text.replace(old, new, 1))
    answer = tldr("run", "sample")
    assert answer.returncode == 2
    assert part in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert last_exit(checkout)["exit_code"] == 2


def test_a_folder_without_params_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tldr: Tldr) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    answer = tldr("run", "sample")
    assert answer.returncode == 2
    assert "no params.yaml" in answer.stderr


def test_commands_work_below_the_root(checkout: Path, tldr: Tldr, monkeypatch: pytest.MonkeyPatch) -> None:
    below = checkout / "docs"
    below.mkdir()
    monkeypatch.chdir(below)
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    assert tldr("run", "sample").returncode == 0
    assert (checkout / "artifacts" / "sample.txt").exists()
    assert not any(below.iterdir())
