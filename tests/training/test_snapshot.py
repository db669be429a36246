"""The served weights: whole, in the served data type, adapters merged, and a model folder that any engine loads."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.engines.weights import EMBEDDING, HEAD, checkpoint_hashes, model_hashes, tensor_hash
from stages.training.course import Course
from stages.training.examples import Batches
from stages.training.snapshot import gather, merge, write_model
from stages.training.trainer import MixtureTrainer
from tests.toy_model import save_random_model
from tests.training.toy_stage import toy_examples, toy_params

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


def trained(folder, work, dtype="float32", **train):
    params = toy_params(train={"lr": 0.05, **train}, model={"dtype": dtype})
    settings = params.train
    batches = Batches(toy_examples(), settings.batch_size, params.seed, settings.unit)
    trainer = MixtureTrainer(params, folder, work, batches, Course(2, settings.batch_size, [0.5, 0.5, 0.5]))
    trainer.train_from(0)
    return trainer


def test_merged_adapters_are_peft_s_own(folder, tmp_path):
    """Against merge_and_unload on a copy; the model in training keeps its adapters and its base."""
    trainer = trained(folder, tmp_path, method="lora", lora={"rank": 3, "alpha": 5.0})
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in before.items())
    found = gather(trainer, "float32")
    merged = copy.deepcopy(trainer.model).merge_and_unload().state_dict()
    assert found.keys() == merged.keys()
    base = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.allclose(found[name], merged[name], atol=1e-6) for name in merged)
    changed = {name for name in base if not torch.equal(found[name], base[name])}
    assert changed == {name for name in base if "_proj" in name}
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_merging_is_the_formula():
    """W + scaling * B @ A, worked by hand; a layer without adapters passes."""
    state = {
        "base_model.model.a.base_layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "base_model.model.a.lora_A.default.weight": torch.tensor([[1.0, 10.0]]),
        "base_model.model.a.lora_B.default.weight": torch.tensor([[2.0], [0.5]]),
        "base_model.model.a.base_layer.bias": torch.tensor([7.0, 8.0]),
        "base_model.model.norm.weight": torch.tensor([9.0]),
    }
    found = merge(state, 0.5)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a.weight": [[2.0, 12.0], [3.25, 6.5]],
        "a.bias": [7.0, 8.0],
        "norm.weight": [9.0],
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_folder_holds_what_was_gathered(folder, tmp_path, dtype):
    """Trained in float32 either way; what is hashed, written and loaded is what is served."""
    trainer = trained(folder, tmp_path / "work", dtype)
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    weights = gather(trainer, dtype)
    assert weights[HEAD] is weights[EMBEDDING] or torch.equal(weights[HEAD], weights[EMBEDDING])
    hashes = {name: tensor_hash(tensor) for name, tensor in weights.items()}
    write_model(weights, folder, dtype, tmp_path / "model")
    assert checkpoint_hashes(tmp_path / "model", dtype) == hashes
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.dtype == getattr(torch, dtype) and model_hashes(loaded) == hashes
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == dtype
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "model" / name).read_bytes() == (folder / name).read_bytes()


def test_small_updates_are_not_rounded_away_in_bfloat16(folder, tmp_path):
    """A learning rate whose steps are below bfloat16's resolution: the weights in training move all the same."""
    trainer = trained(folder, tmp_path, "bfloat16", lr=1e-5)
    base = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    moved = [not torch.equal(tensor, base[name]) for name, tensor in trainer.model.state_dict().items()]
    assert all(moved)
