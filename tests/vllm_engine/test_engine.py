"""The vLLM engine against transformers, against itself, and against what users get wrong."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from statistics import fmean

import pytest

from stages._errors import StageFailed, UserError
from stages.engines.base import DecodeSpec, Engine, Repetition, Request, Response, answer_seed, deal, open_engine
from stages.engines.weights import checkpoint_hashes, require_same_weights
from tests.vllm_engine.conftest import MODEL, requests, vllm_params

pytestmark = pytest.mark.vllm
SPEC = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=640)


def drawn(engine: Engine, wanted: list[Request], spec: DecodeSpec = SPEC, seed: int = 1) -> list[Response]:
    """In the order of `wanted`."""
    found = {(r.problem_id, r.sample_index): r for r in engine.generate(wanted, spec, seed)}
    assert len(found) == len(wanted)
    return [found[r.problem_id, r.sample_index] for r in wanted]


def test_answers_end_where_the_model_ended_them_and_carry_their_seed(one: Engine) -> None:
    wanted = requests(40, 2)
    responses = drawn(one, wanted, DecodeSpec(1.0, 1.0, 100))
    assert {r.finish_reason for r in responses} == {"stop", "length"}
    for request, response in zip(wanted, responses, strict=True):
        assert response.seed == answer_seed(1, request.problem_id, request.sample_index)
        assert (response.token_ids[-1] == 2) == (response.finish_reason == "stop"), "2 is the end token"
        assert 2 not in response.token_ids[:-1]
        assert response.num_tokens <= 100
        assert response.num_tokens == 100 or response.finish_reason == "stop"
    assert len({r.token_ids for r in responses}) >= 50


def test_the_log_probability_is_that_of_transformers(one: Engine) -> None:
    import torch

    from stages.engines.hf import load_model

    model = load_model(str(MODEL), "float32", "cpu")
    wanted = requests(12, 1)
    for request, response in zip(wanted, drawn(one, wanted), strict=True):
        ids = torch.tensor([[*request.prompt_ids, *response.token_ids]])
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
        start = len(request.prompt_ids)
        total = sum(float(logprobs[start + i - 1, token]) for i, token in enumerate(response.token_ids))
        assert response.cumulative_logprob == pytest.approx(total, abs=2e-3)


def test_the_same_seed_and_batch_give_the_same_tokens_and_another_seed_others(one: Engine) -> None:
    wanted = requests(60, 2)
    first = drawn(one, wanted)
    assert drawn(one, wanted) == first
    assert sum(a.token_ids == b.token_ids for a, b in zip(first, drawn(one, wanted, seed=2), strict=True)) < 30


def test_one_and_two_shards_give_the_same_ids_seeds_and_at_least_99_percent_of_the_answers(
    one: Engine, two: Engine
) -> None:
    wanted = requests(256, 2)
    first, second = drawn(one, wanted), drawn(two, wanted)
    assert [(r.problem_id, r.sample_index, r.seed) for r in first] == [
        (r.problem_id, r.sample_index, r.seed) for r in second
    ]
    same = fmean(a.token_ids == b.token_ids for a, b in zip(first, second, strict=True))
    assert same >= 0.99, f"{same:.4f} of the answers have the same tokens"


def test_shares_hold_whole_problems_and_differ_by_one_problem_at_most() -> None:
    wanted = requests(31, 3)
    shares = deal(wanted, 4)
    problems = [{request.problem_id for request in share} for share in shares]
    assert sorted(request.problem_id for share in shares for request in share) == sorted(r.problem_id for r in wanted)
    assert sum(len(ids) for ids in problems) == 31
    assert max(map(len, problems)) - min(map(len, problems)) <= 1


def test_a_model_over_two_devices_answers_alike_and_holds_the_same_weights(one: Engine) -> None:
    wanted = requests(64, 2)
    settings = vllm_params().engine.vllm.model_dump() | {"tensor_parallel_size": 2}
    with open_engine(vllm_params(engine={"vllm": settings}), MODEL) as engine:
        spread = drawn(engine, wanted)
        require_same_weights(engine.weights(), checkpoint_hashes(MODEL, "float32"), "the checkpoint")
    single = drawn(one, wanted)
    assert [(r.problem_id, r.sample_index, r.seed) for r in spread] == [
        (r.problem_id, r.sample_index, r.seed) for r in single
    ]
    assert fmean(a.token_ids == b.token_ids for a, b in zip(spread, single, strict=True)) >= 0.95


def test_a_smaller_limit_draws_the_same_tokens_up_to_it(one: Engine) -> None:
    """What the budget curve rests on."""
    wanted = requests(128, 2)
    whole, cut = drawn(one, wanted), drawn(one, wanted, DecodeSpec(1.0, 1.0, 90))
    same = [a.token_ids[:90] == b.token_ids for a, b in zip(whole, cut, strict=True)]
    assert fmean(same) >= 0.99
    assert all(
        (b.finish_reason == "length") == (a.num_tokens > 90) for a, b, s in zip(whole, cut, same, strict=True) if s
    )
    assert any(b.finish_reason == "length" for b in cut)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 2 heads of size 32: greedy decoding soon goes round in circles."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.toy_model import save_random_model

    folder = save_random_model(tmp_path_factory.mktemp("babbler") / "model")
    config = json.loads((folder / "config.json").read_text()) | {"head_dim": 32}
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    return folder


def test_an_answer_that_repeats_itself_is_cut_where_transformers_cuts_it(babbler: Path) -> None:
    wanted = requests(24, 1)
    spec = DecodeSpec(0.0, 1.0, 80, Repetition(max_pattern_size=6, min_count=4))
    blocks = {"decode": {"max_tokens": 80}, "evaluate": {"budgets": [80]}}
    with open_engine(vllm_params(**blocks), babbler) as engine:
        served = drawn(engine, wanted, spec)
    hf = vllm_params(**blocks, engine={"name": "hf"})
    with open_engine(hf, babbler) as engine:
        plain = drawn(engine, wanted, spec)
    assert any(r.finish_reason == "repetition" for r in served)
    same = [
        (a.token_ids, a.finish_reason) == (b.token_ids, b.finish_reason) for a, b in zip(served, plain, strict=True)
    ]
    assert fmean(same) >= 0.9, "greedy choices of two implementations differ only where two logits are nearly equal"


def test_a_killed_process_is_one_sentence() -> None:
    params = vllm_params()
    with open_engine(params, MODEL) as engine, pytest.raises(StageFailed, match="killed, or out of memory") as caught:
        stream = engine.generate(requests(64, 4), SPEC, 1)
        next(stream)
        os.kill(engine._pool._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        list(stream)
    assert "engine.vllm.kv_cache_gb" in str(caught.value)


def refused(message: str, model: Path = MODEL, **blocks: dict) -> None:
    """The engine refuses before it starts, or at the first request, in one sentence."""
    params = vllm_params(**blocks)
    spec = DecodeSpec(1.0, 1.0, params.decode.max_tokens)
    with pytest.raises(UserError, match=message) as caught, open_engine(params, model) as engine:
        list(engine.generate(requests(4, 1), spec, 1))
    assert "\n" not in str(caught.value)


def test_a_model_folder_without_config_is_refused(model_copy: Path) -> None:
    (model_copy / "config.json").unlink()
    refused("has no config.json", model_copy)


def test_a_context_longer_than_the_model_is_refused_with_the_number_that_fits() -> None:
    refused("context of 1024 tokens.*lower decode.max_tokens to 998 or less", decode={"max_tokens": 1020})


def test_a_prompt_longer_than_announced_is_refused_with_the_number_to_set() -> None:
    settings = vllm_params().engine.vllm.model_dump() | {"max_prompt_tokens": 3}
    refused("more than engine.vllm.max_prompt_tokens = 3; raise it to", engine={"vllm": settings})


def test_memory_that_cannot_suffice_is_refused_with_the_amount_and_the_parameter() -> None:
    settings = vllm_params().engine.vllm.model_dump()
    refused(
        "needs 5e.06 GiB of memory.*lower engine.vllm.kv_cache_gb", engine={"vllm": settings | {"kv_cache_gb": 5e6}}
    )
    refused(
        r"One answer of up to 896 tokens needs 0.00342 GiB of KV cache, more than engine.vllm.kv_cache_gb = 0.001",
        engine={"vllm": settings | {"kv_cache_gb": 0.001}},
    )
