"""Control evaluation: the weights that answer are the weights in training, and answering leaves training as it was."""

from __future__ import annotations

import json

import pytest
import torch

from stages import train
from stages._errors import StageFailed, UserError
from stages._io import read_json
from stages._params import load_params
from stages.data.problems import read_problems
from stages.data.prompts import load_tokenizer
from stages.engines.base import DecodeSpec
from stages.engines.hf import HfEngine, load_model
from stages.engines.rollouts import make_requests
from stages.engines.weights import (
    checkpoint_hashes,
    model_hashes,
    require_checkpoint,
    require_same_weights,
    weights_digest,
)
from stages.training.course import Course
from stages.training.examples import Batches
from stages.training.serving import LiveServer, ReloadServer, open_server, proven, undisturbed
from stages.training.snapshot import Snapshot, gather, publish
from stages.training.trainer import MixtureTrainer
from tests.paths import ROOT
from tests.toy_model import save_random_model
from tests.training.toy_stage import prepare, toy_examples, toy_params, work_of
from tests.weights import nudged, tensor_names

pytestmark = pytest.mark.model
SPEC = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=12)


def params(**blocks):
    """The project's parameters with some keys of some blocks changed."""
    loaded = load_params(ROOT)
    return loaded.model_copy(
        update={name: getattr(loaded, name).model_copy(update=keys) for name, keys in blocks.items()}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder), "float32", "cpu")


def snapshot(model, folder):
    """What the control loop hands over: `model` in one piece, and the folder written last."""
    return Snapshot(model.state_dict(), folder, model)


def hf(folder, processes=1, dtype="float32"):
    return HfEngine(folder, dtype, "cpu", processes=processes, threads=1, batch_size=64, evict_every=4)


def test_every_changed_tensor_is_noticed_by_reload(folder, model, tmp_path):
    """One number of one tensor, one step of float32 away, in the checkpoint that the engine reads."""
    with ReloadServer(hf(folder)) as server:
        for name in tensor_names(folder):
            checkpoint = nudged(folder, tmp_path / "checkpoint", name)
            with pytest.raises(StageFailed, match=name), proven(server, snapshot(model, checkpoint)):
                raise AssertionError(f"{name} was changed, and an answer could be drawn")
        with proven(server, snapshot(model, folder)) as (engine, weights):
            assert weights == weights_digest(engine.weights())


def test_every_changed_tensor_is_noticed_live(folder, model, tmp_path):
    trained, settings = model_hashes(model), params().engine
    with LiveServer(settings) as server:
        require_same_weights(server.hand_over(snapshot(model, folder)).weights(), trained, "the model")
        for name in tensor_names(folder):
            other = load_model(str(nudged(folder, tmp_path / "other", name)), "float32", "cpu")
            with pytest.raises(StageFailed, match=name):
                require_same_weights(server.hand_over(snapshot(other, folder)).weights(), trained, "the model")


def test_bfloat16_is_compared_as_it_is_served_and_by_workers_that_agree(folder, tmp_path):
    """Two workers; in the end one of them reads another checkpoint than its fellow."""
    other = nudged(folder, tmp_path / "other", "model.norm.weight", "bfloat16")
    with hf(folder, processes=2, dtype="bfloat16") as engine:
        require_checkpoint(engine, folder, "bfloat16")
        engine.load(other)
        with pytest.raises(StageFailed, match=r"model\.norm\.weight"):
            require_checkpoint(engine, folder, "bfloat16")
        engine._pool._tasks[1].put(("load", str(folder)))
        with pytest.raises(StageFailed, match="hold different weights"):
            engine.weights()


def trainer_of(folder, work):
    chosen = toy_params(train={"max_steps": 1, "update_every": 1})
    batches = Batches(toy_examples(), chosen.train.batch_size, chosen.seed, chosen.train.unit)
    return MixtureTrainer(chosen, folder, work, batches, Course(1, chosen.train.batch_size, [0.5]))


def test_answering_disturbs_neither_randomness_nor_gradients_nor_mode(folder, tmp_path):
    trainer = trainer_of(folder, tmp_path)
    trainer.model.train()
    ids = torch.tensor([[1, 28, 5, 6, 2]])
    trainer.model(ids, labels=ids).loss.backward()
    gradients = {name: value.grad.clone() for name, value in trainer.model.named_parameters()}
    state = torch.get_rng_state()
    requests = make_requests(load_tokenizer(folder), read_problems(ROOT / "data" / "tiny" / "control.jsonl")[:4], 1)
    trained = Snapshot(gather(trainer, "float32"), folder, trainer.model)
    with LiveServer(params().engine) as server, proven(server, trained) as (engine, _):
        assert len(list(engine.generate(requests, SPEC, 1))) == 4
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert trainer.model.training
    assert all(torch.equal(value.grad, gradients[name]) for name, value in trainer.model.named_parameters())


def test_what_an_engine_changes_in_the_process_is_put_back():
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ValueError), undisturbed():
        torch.set_num_threads(before[0] + 1)
        torch.set_default_dtype(torch.bfloat16)
        torch.use_deterministic_algorithms(not before[2])
        raise ValueError
    assert before == (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def test_a_checkpoint_that_changed_after_its_evaluation_is_not_kept(folder, tmp_path):
    weights = weights_digest(checkpoint_hashes(folder, "float32"))
    publish(folder, tmp_path / "model", "float32", weights)
    assert checkpoint_hashes(tmp_path / "model", "float32") == checkpoint_hashes(folder, "float32")
    other = nudged(folder, tmp_path / "work" / "step-00001", "model.norm.weight")
    with pytest.raises(StageFailed, match="changed afterwards"):
        publish(other, tmp_path / "second", "float32", weights)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(("engine", "tensor_parallel"), [("hf", 1), ("vllm", 2)])
def test_colocated_needs_one_vllm(folder, engine, tensor_parallel):
    chosen = params(train={"control_engine": "colocated"}, engine={"name": engine})
    vllm = chosen.engine.vllm.model_copy(update={"tensor_parallel_size": tensor_parallel})
    chosen = chosen.model_copy(update={"engine": chosen.engine.model_copy(update={"vllm": vllm})})
    with pytest.raises(UserError, match=r"set engine\.name to vllm"):
        open_server(chosen, folder)


def stage(folder, root, control_engine, engine="hf", asked=None):
    """Run the stage `train` in the new folder `root`, on the model in `folder`: three windows of two steps."""
    ratio = {"control_questions": asked}
    chosen = toy_params(engine={"name": engine}, train={"control_engine": control_engine}, ratio=ratio)
    train.main(root, prepare(folder, root, chosen, 16))


@pytest.mark.parametrize("asked", [None, 8])
def test_training_is_the_same_whoever_answers(folder, tmp_path, asked):
    """The whole stage with the model in training and with a second process: the same answers, hence the same ratios, and
    weights that agree in every bit. With one process, so that batches, and with them roundings, are the same."""
    for kind in ("live", "reload"):
        stage(folder, tmp_path / kind, kind, asked=asked)
    live, reload = tmp_path / "live", tmp_path / "reload"
    assert len({row.split(",")[1] for row in (live / "results" / "ratio.csv").read_text().splitlines()[1:]}) == 3
    for file in ("results/ratio.csv", "artifacts/model/model.safetensors"):
        assert (live / file).read_bytes() == (reload / file).read_bytes(), file
    for root in (live, reload):
        kept = weights_digest(checkpoint_hashes(root / "artifacts" / "model", "float32"))
        assert read_json(root / "artifacts" / "provenance" / "train.json", "")["weights"] == kept
        metrics = read_json(root / "results" / "train.json", "")
        assert metrics["control_engine"] == root.name and ("scored" in metrics) is (asked is not None)
    if asked is not None:  # by another engine process than before: the stage starts one after `live`
        logs = [(work_of(root) / "confirmed.jsonl").read_bytes() for root in (live, reload)]
        assert logs[0] == logs[1] and metrics["scored"].keys() >= {f"step-{metrics['selected_step']:05d}"}


def test_the_folders_that_are_kept_hold_what_was_evaluated(folder, tmp_path):
    """The digest in the windows log is that of the model folder of that step; a step that cannot be selected has none."""
    stage(folder, tmp_path, "live")
    work = work_of(tmp_path)
    rows = {row["step"]: row for row in map(json.loads, (work / "windows.jsonl").read_text().splitlines())}
    assert len({row["weights"] for row in rows.values()}) == 3
    kept = {int(path.name.removeprefix("step-")) for path in work.glob("step-*")}
    assert kept == {6, read_json(tmp_path / "results" / "train.json", "")["selected_step"]}
    for step in kept:
        assert rows[step]["weights"] == weights_digest(checkpoint_hashes(work / f"step-{step:05d}", "float32"))
