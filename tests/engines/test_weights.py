"""Hashes of weights: what counts as a difference, what does not, and what a refusal says."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages._errors import StageFailed
from stages.engines.hf import load_model
from stages.engines.weights import (
    EMBEDDING,
    HEAD,
    checkpoint_hashes,
    model_hashes,
    require_same_weights,
    tensor_hash,
    weights_digest,
)
from tests.toy_model import save_random_model
from tests.weights import nudged, tensor_names

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


def differing(one, other):
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hash_covers_every_bit_shape_and_data_type_but_not_the_sign_of_zero(dtype):
    tensor = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    tensor[0, 0] = 0.0
    hashes = {tensor_hash(tensor), tensor_hash(tensor.reshape(7, 5)), tensor_hash(tensor.double())}
    for index in range(tensor.numel()):
        other = tensor.clone()
        other.view(-1)[index] = torch.nextafter(other.view(-1)[index], torch.tensor(9.0, dtype=dtype))
        hashes.add(tensor_hash(other))
    assert len(hashes) == 3 + tensor.numel()
    negative = tensor.clone()
    negative[0, 0] = -0.0
    assert tensor_hash(negative) == tensor_hash(tensor)


def test_a_hash_is_that_of_the_numbers_wherever_they_lie():
    tensor = torch.arange(12.0).reshape(3, 4)
    assert tensor_hash(tensor.T.contiguous().T) == tensor_hash(tensor) == tensor_hash(torch.nn.Parameter(tensor))
    assert tensor_hash(torch.tensor(3.0)) != tensor_hash(torch.tensor([3.0]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_has_the_hashes_of_its_checkpoint(folder, dtype):
    assert model_hashes(load_model(str(folder), dtype, "cpu")) == checkpoint_hashes(folder, dtype)


def test_a_checkpoint_in_one_data_type_is_compared_in_the_one_that_serves(folder, tmp_path):
    """A step of float32 vanishes in bfloat16; a step of bfloat16 does not."""
    served = checkpoint_hashes(folder, "bfloat16")
    small = nudged(folder, tmp_path / "small", "model.norm.weight", "float32")
    assert checkpoint_hashes(small, "bfloat16") == served
    large = nudged(folder, tmp_path / "large", "model.norm.weight", "bfloat16")
    assert differing(checkpoint_hashes(large, "bfloat16"), served) == {"model.norm.weight"}


def test_every_changed_tensor_is_noticed_and_a_tied_one_under_both_names(folder, tmp_path):
    before = checkpoint_hashes(folder, "float32")
    names = tensor_names(folder)
    assert before.keys() == {*names, HEAD} and HEAD not in names
    for name in names:
        after = checkpoint_hashes(nudged(folder, tmp_path / "other", name), "float32")
        assert differing(before, after) == ({name, HEAD} if name == EMBEDDING else {name})
        assert weights_digest(before) != weights_digest(after)


def test_shards_are_read_through_their_index_and_nothing_beside_them(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({names[0]: tensors[names[0]] + 1.0}, tmp_path / "consolidated.safetensors")
    assert checkpoint_hashes(tmp_path, "float32") == checkpoint_hashes(folder, "float32")


def test_a_constant_that_old_checkpoints_store_is_not_a_weight(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, tmp_path / "model.safetensors")
    assert checkpoint_hashes(tmp_path, "float32") == checkpoint_hashes(folder, "float32")


def test_a_refusal_names_what_differs_what_lacks_and_what_is_too_much():
    trained = {"a": "1", "b": "2"}
    require_same_weights(dict(reversed(trained.items())), trained, "the model")
    for served, named in (
        ({"a": "1", "b": "3"}, r"of the model: 1 of 2 tensors differ \(b\)"),
        ({"a": "1"}, r"1 of 2 tensors differ \(b\)"),
        ({"a": "1", "b": "2", "c": "3"}, r"1 of 3 tensors differ \(c\)"),
        ({"c": "1", "d": "2", "e": "3"}, r"5 of 5 tensors differ \(a, b, c, \.\.\.\)"),
    ):
        with pytest.raises(StageFailed, match=named):
            require_same_weights(served, trained, "the model")
