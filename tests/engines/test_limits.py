"""Context and memory of a model, from its files alone, against what transformers and the file system say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages._errors import UserError
from stages._params import check_params, read_yaml
from stages.data.model_folder import end_token_ids, num_parameters
from stages.engines.base import DecodeSpec, Request, deal, open_engine
from stages.engines.limits import check_context, check_memory, free_memory, kv_bytes_per_token, weight_bytes
from stages.engines.vllm import visible_devices
from tests.paths import ROOT
from tests.toy_model import save_random_model

MODEL = ROOT / "models" / "tiny"


def settings(**changed: object):
    return check_params(read_yaml(ROOT / "params.yaml"), "params.yaml").engine.vllm.model_copy(update=changed)


@pytest.mark.model
def test_parameters_and_cache_are_those_of_transformers() -> None:
    from transformers import DynamicCache

    from stages.engines.hf import load_model

    model = load_model(str(MODEL), "float32", "cpu")
    assert num_parameters(MODEL) == sum(p.numel() for p in model.parameters())
    assert weight_bytes(MODEL, "bfloat16") == 2 * num_parameters(MODEL)
    import torch

    cache = DynamicCache(config=model.config)
    model(input_ids=torch.ones((1, 7), dtype=torch.long), past_key_values=cache, use_cache=True)
    numbers = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert kv_bytes_per_token(MODEL, "float32") == 4 * numbers // 7


def test_grouped_heads_and_a_missing_head_size_count(tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 28}))
    assert kv_bytes_per_token(tmp_path, "bfloat16") == 2 * 28 * 4 * 128 * 2, "57,344 bytes a token for R1-Distill-7B"


def test_a_context_that_is_just_long_enough_passes() -> None:
    request = [Request("a", 0, (1,) * 24)]
    check_context(MODEL, request, DecodeSpec(1.0, 1.0, 1000))
    with pytest.raises(UserError, match=r"context of 1024 tokens.*lower decode.max_tokens to 1000 or less"):
        check_context(MODEL, request, DecodeSpec(1.0, 1.0, 1001))


def test_the_transformers_engine_refuses_a_context_that_is_too_long() -> None:
    document = read_yaml(ROOT / "params.yaml")
    document["decode"]["max_tokens"] = 1020
    params = check_params(document, "params.yaml")
    with pytest.raises(UserError, match="context of 1024 tokens"):
        open_engine(params, MODEL).generate([Request("a", 0, (1,) * 24)], DecodeSpec(1.0, 1.0, 1020), 1)


def test_memory_is_refused_with_the_amount_and_the_parameters() -> None:
    check_memory(MODEL, "float32", "cpu", settings(kv_cache_gb=0.1), 640)
    with pytest.raises(UserError, match=r"One answer of up to 896 tokens needs 0.00342 GiB"):
        check_memory(MODEL, "float32", "cpu", settings(kv_cache_gb=0.003), 640)
    with pytest.raises(UserError, match=r"needs .* GiB of memory .*lower engine.vllm.kv_cache_gb"):
        check_memory(MODEL, "float32", "cpu", settings(kv_cache_gb=2 * free_memory() / 2**30), 640)


def test_end_ids_come_from_the_generation_config_first(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert end_token_ids(folder) == [7, 9]
    (folder / "generation_config.json").unlink()
    assert end_token_ids(folder) == [config["eos_token_id"]]
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    with pytest.raises(UserError, match="names no eos_token_id"):
        end_token_ids(folder)


def test_shares_hold_whole_problems_whatever_their_number() -> None:
    requests = [Request(f"p{p}", sample, (1,)) for p in range(31) for sample in range(3)]
    for num_shares in (1, 2, 4, 40):
        shares = deal(requests, num_shares)
        problems = [{request.problem_id for request in share} for share in shares]
        assert sum(len(ids) for ids in problems) == 31
        assert sum(map(len, shares)) == len(requests)
        assert max(map(len, problems)) - min(map(len, problems)) <= 1


def test_each_process_sees_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [visible_devices(rank, 2) for rank in range(3)] == ["0,1", "2,3", "4,5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,GPU-ab")
    assert [visible_devices(rank, 1) for rank in range(3)] == ["3", "5", "GPU-ab"]
    with pytest.raises(UserError, match="need more GPUs than the 3"):
        visible_devices(1, 2)
