"""Control evaluation with vLLM: what is read back from the engine is what was trained, tensor by tensor."""

from __future__ import annotations

import pytest

from stages._errors import StageFailed
from stages._io import read_json
from stages.engines.base import DecodeSpec, open_engine
from stages.engines.vllm import ColocatedVllm
from stages.engines.weights import EMBEDDING, HEAD, checkpoint_hashes, model_hashes, require_same_weights
from stages.training.serving import ReloadServer, open_server, proven
from tests.training.test_serving import snapshot
from tests.vllm_engine.conftest import MODEL, requests, vllm_params
from tests.weights import nudged, tensor_names

pytestmark = pytest.mark.vllm
GREEDY = DecodeSpec(temperature=0.0, top_p=1.0, max_tokens=40)


def differing(one, other):
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def save_qwen(folder, *, num_kv_heads, tied):
    """An untrained Qwen2: biases, grouped keys and values, an odd vocabulary."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from stages.tiny.build import write_tokenizer

    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=101,
        hidden_size=128,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=num_kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
    )
    model = Qwen2ForCausalLM(config)
    for parameter in model.parameters():  # biases start at 0 and norms at 1
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def nudge(tensor):
    """Change the largest number of `tensor` in place by one step; returns what undoes it."""
    import torch

    flat = tensor.data.view(-1)
    place = int(flat.abs().argmax())
    before = flat[place].clone()
    flat[place] = torch.nextafter(before, torch.tensor(torch.inf))
    return lambda: flat[place].copy_(before)


def test_every_changed_tensor_is_noticed_by_reload(tmp_path):
    """The shipped model, whose output layer is its embedding; one step of float32 in one tensor of the checkpoint."""
    from stages.engines.hf import load_model

    model = load_model(str(MODEL), "float32", "cpu")
    with ReloadServer(open_engine(vllm_params(), MODEL)) as server:
        for name in tensor_names(MODEL):
            checkpoint = nudged(MODEL, tmp_path / "checkpoint", name)
            with pytest.raises(StageFailed, match=name), proven(server, snapshot(model, checkpoint)):
                raise AssertionError(f"{name} was changed, and an answer could be drawn")
            # All of it arrived, a tied output layer too, of which vLLM keeps a packed copy on a CPU.
            assert server.hand_over(snapshot(model, checkpoint)).weights() == checkpoint_hashes(checkpoint, "float32")
        with proven(server, snapshot(model, MODEL)) as (engine, _):
            assert engine.weights() == checkpoint_hashes(MODEL, "float32")


def test_every_changed_tensor_is_noticed_in_bfloat16_with_biases_and_an_own_output_layer(tmp_path):
    folder = save_qwen(tmp_path / "qwen", num_kv_heads=2, tied=False)
    before = checkpoint_hashes(folder, "bfloat16")
    with open_engine(vllm_params(model={"dtype": "bfloat16"}), folder) as engine:
        assert engine.weights() == before
        for name in tensor_names(folder):
            engine.load(nudged(folder, tmp_path / "checkpoint", name, "bfloat16"))
            assert differing(engine.weights(), before) == {name}


def keep_biases_in_float32(model):
    """What vLLM's kernels for CPUs with AMX do when they start."""
    import torch

    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = parameter.data.to(torch.float32)


def test_a_float32_bias_is_rounded_by_a_reload_as_by_a_start(tmp_path):
    """The checkpoint has digits that bfloat16 has not; a reload must serve none of them, on whatever processor."""
    folder = save_qwen(tmp_path / "qwen", num_kv_heads=2, tied=False)
    with ColocatedVllm(folder, "bfloat16", "cpu", vllm_params().engine, 40) as engine:
        engine._model._llm.apply_model(keep_biases_in_float32)
        engine.load(folder)
        assert engine.weights() == checkpoint_hashes(folder, "bfloat16")


def test_weights_that_two_workers_share_are_read_as_wholes(tmp_path):
    """Tensor parallel: heads, columns, rows and vocabulary are divided; the single key-value head is held twice."""
    folder = save_qwen(tmp_path / "qwen", num_kv_heads=1, tied=True)
    params = vllm_params()
    vllm = params.engine.vllm.model_copy(update={"tensor_parallel_size": 2})
    params = params.model_copy(update={"engine": params.engine.model_copy(update={"vllm": vllm})})
    with open_engine(params, folder) as engine:
        assert engine.weights() == checkpoint_hashes(folder, "float32")
        name = "model.layers.1.self_attn.v_proj.weight"
        engine.load(nudged(folder, tmp_path / "checkpoint", name))
        assert differing(engine.weights(), checkpoint_hashes(folder, "float32")) == {name}


def test_every_changed_tensor_is_noticed_colocated(tmp_path):
    """The model in training changes in one number of one tensor: vLLM in the same process gets exactly that, and without
    the hand-over is caught."""
    from stages.engines.hf import load_model

    model = load_model(str(MODEL), "float32", "cpu")
    before = model_hashes(model)
    with open_server(vllm_params(train={"control_engine": "colocated"}), MODEL) as server:
        with proven(server, snapshot(model, MODEL)) as (engine, _):
            first = list(engine.generate(requests(8, 1), GREEDY, 1))
        for name, parameter in model.named_parameters():
            undo = nudge(parameter)
            with pytest.raises(StageFailed, match=name):
                require_same_weights(engine.weights(), model_hashes(model), "the model in training")
            with proven(server, snapshot(model, MODEL)) as (engine, _):
                assert differing(engine.weights(), before) == ({name, HEAD} if name == EMBEDDING else {name})
            undo()
            with proven(server, snapshot(model, MODEL)):
                pass
        with proven(server, snapshot(model, MODEL)) as (engine, _):
            assert list(engine.generate(requests(8, 1), GREEDY, 1)) == first


def test_training_is_the_same_whoever_answers(tmp_path):
    """The whole stage with vLLM in this process and in another: the same answers, ratios and weights, bit for bit."""
    from tests.training.test_serving import stage

    for kind in ("reload", "colocated"):
        stage(MODEL, tmp_path / kind, kind, engine="vllm")
    for file in ("results/ratio.csv", "artifacts/model/model.safetensors"):
        assert (tmp_path / "reload" / file).read_bytes() == (tmp_path / "colocated" / file).read_bytes(), file
    assert read_json(tmp_path / "colocated" / "results" / "train.json", "")["control_engine"] == "colocated"
