"""Several processes through `accelerate launch`: the command line, how runs end, and that the processes agree."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages import train as stage
from stages._errors import EXIT_INTERRUPTED, Interrupted, StageFailed, UserError
from stages._io import write_json, write_text
from stages.training import worker
from stages.training.confirmation import CONFIRMED
from stages.training.launch import (
    CONFIGS,
    PARAMS,
    STAGE_PID,
    STOP,
    check_launch,
    command,
    leave_outcome,
    machine_rank,
    outcome,
)
from tests.paths import ROOT
from tests.toy_model import save_random_model
from tests.training.toy_stage import changed, prepare, results, start, toy_params, work_of


def launched(kind="ddp", **launch):
    return toy_params(
        train={"micro_batch_size": 1, "launch": {"kind": kind, "num_processes": 2, **launch}}, engine={"threads": 3}
    )


def test_the_command_line_of_one_machine(tmp_path):
    line = command(launched("fsdp2"), tmp_path, tmp_path / "work", {})
    assert line == [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "fsdp2.yaml")),
        *(
            "--num_processes",
            "2",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--num_cpu_threads_per_process",
            "3",
        ),
        *("--main_process_port", "0", "-m", "stages.training.worker", str(tmp_path), str(tmp_path / "work")),
    ]
    assert all((CONFIGS / f"{kind}.yaml").is_file() for kind in ("ddp", "fsdp2", "zero3"))


def test_several_machines_meet_at_the_first(tmp_path):
    params = launched("ddp", num_machines=2)
    line = command(params, tmp_path, tmp_path, {"MACHINE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "4000"})
    said = dict(zip(line[3::2], line[4::2], strict=False))
    assert said["--num_processes"] == "4" and said["--num_machines"] == "2" and said["--machine_rank"] == "1"
    assert said["--main_process_ip"] == "node0" and said["--main_process_port"] == "4000"
    for environment in ({}, {"MACHINE_RANK": "2", "MASTER_ADDR": "node0"}, {"MACHINE_RANK": "0"}):
        with pytest.raises(UserError, match=r"set MACHINE_RANK \(0 to 1\) and MASTER_ADDR"):
            machine_rank(params, environment)
    assert machine_rank(launched(), {}) == machine_rank(launched(), {"MACHINE_RANK": "0"}) == 0
    with pytest.raises(UserError, match=r"MACHINE_RANK is 1, but train\.launch\.num_machines is 1"):
        machine_rank(launched(), {"MACHINE_RANK": "1"})  # it would train the same a second time


@pytest.mark.parametrize("room", [True, False])
def test_a_full_disk_is_named_by_a_process_of_several_too(tmp_path, monkeypatch, capsys, room):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(worker, "end_with_launcher", lambda: None)
    monkeypatch.setattr(worker, "read_inputs", full)
    if not room:
        monkeypatch.setattr(worker, "leave_outcome", full)
    write_json(tmp_path / PARAMS, launched().model_dump(mode="json"))
    assert worker.main(tmp_path, tmp_path) == 1
    assert "The disk is full: free some space" in capsys.readouterr().err
    error = outcome(tmp_path, 1)
    assert isinstance(error, StageFailed)
    assert ("The disk is full" if room else "its output is above") in str(error)


def test_deepspeed_has_to_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="deepspeed is not installed"):
        check_launch(launched("zero3"))


def test_why_the_processes_ended_is_what_they_left(tmp_path):
    assert "no training process left a reason" in str(outcome(tmp_path, 1))
    leave_outcome(tmp_path, 1, 70, "KeyError: 'x'")
    assert isinstance(outcome(tmp_path, 1), AssertionError)
    leave_outcome(tmp_path, 0, 1, "The loss is not finite at step 3.")
    assert isinstance(outcome(tmp_path, 1), StageFailed) and "step 3" in str(outcome(tmp_path, 1))
    for rank in (0, 1):
        leave_outcome(tmp_path, rank, EXIT_INTERRUPTED, "Stopped by SIGTERM after step 3 of 6.")
    write_text(tmp_path / STOP, "")
    assert isinstance(outcome(tmp_path, 1), Interrupted) and "step 3" in str(outcome(tmp_path, 1))


def test_a_stop_before_the_processes_are_up_is_a_stop(tmp_path):
    write_text(tmp_path / STOP, "")
    assert isinstance(outcome(tmp_path, 1), Interrupted)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


@pytest.mark.model
def test_two_processes_are_stopped_and_go_on(folder, tmp_path):
    """The stage from the command line, launched for real: SIGTERM within a window, code 75, then to the end. The shares
    and the order are those of one process, the weights equal up to rounding; whole on one process, for comparison."""
    from safetensors.torch import load_file

    sizes = {"max_steps": 400, "update_every": 200, "lr": 0.001}
    both = toy_params(train={**sizes, "micro_batch_size": 1, "launch": {"kind": "ddp", "num_processes": 2}})
    prepare(folder, tmp_path / "two", both)
    stopped = start(tmp_path / "two")
    printed = ""
    for line in stopped.stdout:
        printed += line
        if "control at step 200/400" in line:
            stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == EXIT_INTERRUPTED, printed
    assert "of 400, which is saved; run the same command again" in printed and "Traceback" not in printed
    assert not (tmp_path / "two" / "artifacts" / "model").exists()
    again = start(tmp_path / "two")
    printed, _ = again.communicate()
    assert again.returncode == 0, printed
    one = prepare(folder, tmp_path / "one", toy_params(train=sizes))
    stage.main(tmp_path / "one", one)
    left, right = results(tmp_path / "one"), results(tmp_path / "two")
    shares = [[row.split(",")[:4] for row in each["results/ratio.csv"].decode().splitlines()] for each in (left, right)]
    assert shares[0] == shares[1] and len(shares[0]) == 3
    trained = [load_file(tmp_path / name / "artifacts" / "model" / "model.safetensors") for name in ("one", "two")]
    apart = max(float((trained[0][name] - trained[1][name]).abs().max()) for name in trained[0])
    assert 0.0 <= apart < 0.05, apart


@pytest.mark.model
@pytest.mark.parametrize("kind", ["fsdp2", "zero3"])
def test_sharded_training_is_the_same(folder, tmp_path, kind, monkeypatch):
    """Over two processes: the history of one process, and weights that are equal up to rounding. The stage has a checkpoint
    answer the whole control set when they are gone, and starts none again if it is stopped there."""
    from safetensors.torch import load_file

    if kind == "zero3":
        pytest.importorskip("deepspeed")
    asked = {"control_questions": 8}
    params = changed(launched(kind), ratio=asked)
    prepare(folder, tmp_path / kind, params, 16)
    stage.main(tmp_path / kind, params)
    alone = prepare(folder, tmp_path / "alone", toy_params(ratio=asked), 16)
    stage.main(tmp_path / "alone", alone)
    rows = [results(tmp_path / name)["results/ratio.csv"].decode().splitlines() for name in (kind, "alone")]
    assert [row.split(",")[:5] for row in rows[0]] == [row.split(",")[:5] for row in rows[1]] and len(rows[0]) == 4
    one, other = (load_file(tmp_path / name / "artifacts" / "model" / "model.safetensors") for name in (kind, "alone"))
    assert one.keys() == other.keys()
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-3
    first, work = results(tmp_path / kind), work_of(tmp_path / kind)
    for path in (work / "done", work / CONFIRMED, tmp_path / kind / "results" / "train.json"):
        path.unlink()
    monkeypatch.setattr(stage, "run_launch", lambda *_: pytest.fail("nothing is left to train"))
    stage.main(tmp_path / kind, params)
    assert results(tmp_path / kind) == first


@pytest.mark.model
def test_nothing_outlives_the_stage(folder, tmp_path):
    """It is killed outright, and its launcher and processes go with it."""
    sizes = {"max_steps": 4000, "update_every": 2000, "micro_batch_size": 1}
    prepare(folder, tmp_path, toy_params(train={**sizes, "launch": {"kind": "ddp", "num_processes": 2}}))
    killed = start(tmp_path)
    while not list((tmp_path / ".tldr").glob("work/train/*/windows.jsonl")):
        assert killed.poll() is None, killed.stdout.read()
    assert len(processes_in(tmp_path)) >= 3  # the launcher and two processes
    killed.kill()
    killed.wait()
    assert killed.stdout.read() is not None  # the pipe closes when the last of them is gone
    assert not processes_in(tmp_path)


@pytest.mark.model
def test_a_process_whose_launcher_went_before_it_was_up_goes_too(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    line = [sys.executable, "-m", "stages.training.worker", str(tmp_path), str(tmp_path)]
    for pid, code in ((gone.pid, -signal.SIGKILL), (os.getpid(), 2)):  # 2: there are no parameters in that folder
        done = subprocess.run(line, cwd=ROOT, env={**os.environ, "RANK": "1", STAGE_PID: str(pid)}, timeout=120)
        assert done.returncode == code


def processes_in(root):
    """Processes of a training whose command line names `root`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return [line for line in lines if str(root).encode() in line and b"stages.training.worker" in line]
