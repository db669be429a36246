"""A run that is killed and started again ends with the same weights, ratio history and metrics, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages._errors import EXIT_INTERRUPTED, StageFailed, UserError
from stages._params import load_params
from stages.training.checkpoints import last_step
from stages.training.inputs import read_inputs
from stages.training.session import memory_named, train
from tests.paths import ROOT
from tests.toy_model import save_random_model
from tests.training.toy_stage import prepare, results, start, toy_params, work_of

pytestmark = pytest.mark.model
STEPS = {"max_steps": 12, "update_every": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


def run_killed(root: Path, world_size: int, kills: list[tuple[int, int]]) -> dict[str, list]:
    command = [sys.executable, "-m", "tests.training.kills", str(root), str(world_size)]
    command += [f"{rank}:{event}" for rank, event in kills]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def left(root: Path) -> dict[str, bytes]:
    """The history and every model folder that may still be selected."""
    work = root / ".tldr" / "work" / "train" / "fingerprint"
    models = sorted(path for folder in work.glob("step-*") for path in folder.iterdir())
    logs = sorted(work.glob("*.jsonl"))
    return {str(path.relative_to(work)): path.read_bytes() for path in [*models, *logs]}


@pytest.mark.parametrize(
    ("world_size", "num_kills", "train", "asked"),
    [
        (1, 5, {"control_engine": "live"}, None),
        (1, 2, {"method": "lora", "lora": {"dropout": 0.5}, "unit": "tokens"}, 8),
        (2, 3, {"micro_batch_size": 1, "launch": {"kind": "ddp", "num_processes": 2}}, None),
    ],
    ids=["one process", "lora with dropout, a part of the control set", "two processes"],
)
def test_kills_at_random_moments_change_nothing(folder, tmp_path, world_size, num_kills, train, asked):
    """SIGKILL in the middle of file operations, anywhere between the first and the last of an unharmed run."""
    params = toy_params(train=STEPS | train, ratio={"control_questions": asked})
    for name in ("unharmed", "killed"):
        prepare(folder, tmp_path / name, params, 16)
    events = run_killed(tmp_path / "unharmed", world_size, [])["events"]
    chance = random.Random(f"{world_size}/{num_kills}")
    ranks = [chance.randrange(world_size) for _ in range(num_kills)]
    kills = [(rank, chance.randrange(1, events[rank] // 2 + 2)) for rank in ranks]
    ends = run_killed(tmp_path / "killed", world_size, kills)["ends"]
    killed = [-signal.SIGKILL in end for end in ends]
    assert killed[-1] is False and sum(killed) >= num_kills - 1, (kills, events, ends)
    assert left(tmp_path / "killed") == left(tmp_path / "unharmed")
    assert ("confirmed.jsonl" in left(tmp_path / "killed")) is (asked is not None)


def test_sigterm_saves_where_it_falls_and_says_so(folder, tmp_path):
    """The whole stage from the command line, stopped right after the first of two long windows; nothing is published."""
    params = toy_params(train={"max_steps": 800, "update_every": 400, "lr": 0.001, "control_engine": "live"})
    for name in ("whole", "stopped"):
        prepare(folder, tmp_path / name, params)
    stopped = start(tmp_path / "stopped")
    printed = ""
    for line in stopped.stdout:
        printed += line
        if "control at step 400/800" in line:
            stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == EXIT_INTERRUPTED, printed
    assert "which is saved; run the same command again" in printed
    step = last_step(work_of(tmp_path / "stopped"))
    assert 400 < step < 800
    assert not (tmp_path / "stopped" / "artifacts" / "model").exists()
    assert not (tmp_path / "stopped" / "results").exists()
    for name in ("stopped", "whole"):
        run = start(tmp_path / name)
        printed, _ = run.communicate()
        assert run.returncode == 0, printed
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(folder, tmp_path):
    params = prepare(folder, tmp_path, toy_params(train={"lr": 1e30, "max_grad_norm": 1e30, "control_engine": "live"}))
    inputs = read_inputs(tmp_path, params)
    work = tmp_path / "fingerprint"
    work.mkdir()
    with pytest.raises(
        StageFailed, match=r"The (loss|grad norm) is not finite at step \d.*train\.lr.*system"
    ) as caught:
        train(params, inputs, work)
    step = last_step(work)
    assert f"the checkpoint of step {step} is kept" in str(caught.value) and step < 6
    assert all(name in str(caught.value) for name in ("system1-", "system2-"))


def test_a_checkpoint_of_another_run_is_refused(folder, tmp_path):
    params = prepare(folder, tmp_path, toy_params(train={"control_engine": "live", "max_steps": 2}))
    inputs = read_inputs(tmp_path, params)
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    train(params, inputs, one)
    other.mkdir()
    (one / "checkpoint-2").rename(other / "checkpoint-2")
    with pytest.raises(UserError, match=r"checkpoint-2 belongs to another run \(fingerprint one, not other\)"):
        train(params, inputs, other)


def test_a_changed_parameter_starts_from_the_base(folder, tmp_path):
    """Work of other parameters lies beside; the weights are those of a run that never saw it."""
    from stages import train as stage

    first = prepare(folder, tmp_path / "a", toy_params(train={"control_engine": "live"}))
    stage.main(tmp_path / "a", first)
    second = toy_params(train={"control_engine": "live", "lr": 0.02})
    stage.main(tmp_path / "a", second)
    prepare(folder, tmp_path / "b", second)
    stage.main(tmp_path / "b", load_params(tmp_path / "b"))
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_a_finished_run_is_not_gone_on_with(folder, tmp_path):
    """The stage forced again with the same parameters trains anew, to the same bytes."""
    from stages import train as stage

    params = prepare(folder, tmp_path, toy_params(train={"control_engine": "live"}))
    stage.main(tmp_path, params)
    before = results(tmp_path)
    stage.main(tmp_path, params)
    assert results(tmp_path) == before


def test_where_memory_ends_the_message_says_what_to_lower():
    """With torch's own error for more memory than there is; another error passes as it is."""
    import torch

    params = toy_params()
    said = r"lower train\.micro_batch_size \(now 2\), or set train\.gradient_checkpointing"
    with pytest.raises(StageFailed, match=said), memory_named(params):
        torch.empty(10**15)
    smallest = toy_params(train={"micro_batch_size": 1, "gradient_checkpointing": True})
    said = r"ran out of memory: lower train\.max_length \(now 700\), and run again"
    with pytest.raises(StageFailed, match=said), memory_named(smallest):
        raise MemoryError
    with pytest.raises(RuntimeError, match="shapes"), memory_named(params):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
