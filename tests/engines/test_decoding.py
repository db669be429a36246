"""The decode loop: what it draws, from which noise, and that batching, padding and eviction change nothing."""

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from stages.engines.base import DecodeSpec, Request, answer_seed
from stages.engines.decoding import choose_tokens, decode_batch, make_batches, noise

VOCABULARY, END = 12, 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=END,
        bos_token_id=1,
        pad_token_id=0,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config).eval()


def requests(count=24):
    rng = np.random.default_rng(0)
    return [
        Request(f"p{i}", i % 3, (1, *(int(t) for t in rng.integers(3, VOCABULARY, 1 + i % 5)))) for i in range(count)
    ]


def decode(model, wanted, spec, batch_size=64, evict_every=4, seed=7):
    found = {}
    for batch in make_batches(wanted, batch_size):
        for response in decode_batch(model, batch, spec, seed, evict_every):
            found[response.problem_id, response.sample_index] = response
    return found


def test_greedy_decoding_equals_the_librarys_own(model):
    spec = DecodeSpec(temperature=0.0, top_p=1.0, max_tokens=30)
    found = decode(model, requests(), spec)
    for request in requests():
        ids = torch.tensor([request.prompt_ids])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
        assert list(found[request.problem_id, request.sample_index].token_ids) == expected[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(("batch_size", "evict_every"), [(1, 1), (5, 3), (24, 1000)])
def test_batching_padding_and_eviction_do_not_change_an_answer(model, batch_size, evict_every):
    spec = DecodeSpec(temperature=1.0, top_p=0.9, max_tokens=40)
    assert decode(model, requests(), spec) == decode(model, requests(), spec, batch_size, evict_every)


def test_every_answer_ends_with_its_reason(model):
    spec = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=6)
    found = decode(model, requests(60), spec)
    assert len(found) == 60
    for response in found.values():
        if response.finish_reason == "stop":
            assert response.token_ids[-1] == END and END not in response.token_ids[:-1]
        else:
            assert response.finish_reason == "length"
            assert response.num_tokens == 6 and END not in response.token_ids
    assert {response.finish_reason for response in found.values()} == {"stop", "length"}


def test_the_sampled_distribution_is_the_models():
    """Inverse transform over many uniforms reproduces softmax(logits / T), against torch's own softmax."""
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    uniforms = torch.from_numpy(noise(3, 100_000))
    drawn = choose_tokens(logits.expand(100_000, 4), uniforms, DecodeSpec(0.7, 1.0, 1))
    shares = torch.bincount(drawn, minlength=4) / 100_000
    assert torch.allclose(shares, torch.softmax(logits / 0.7, 0), atol=0.006)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    uniforms = torch.linspace(0, 1, 1001)[:-1].double()
    drawn = choose_tokens(logits.expand(1000, 4), uniforms, DecodeSpec(1.0, 0.75, 1))
    shares = torch.bincount(drawn, minlength=4) / 1000
    assert torch.allclose(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.002)


def test_noise_is_keyed_by_seed_problem_and_sample():
    keys = {answer_seed(seed, problem, sample) for seed in (1, 2) for problem in ("a", "b") for sample in (0, 1, 10)}
    assert len(keys) == 12
    assert answer_seed(1, "a", 0) == answer_seed(1, "a", 0)
    assert np.array_equal(noise(5, 10), noise(5, 20)[:10])
