"""The shipped reasoner does what the README says of it: as good as its generator, as long, and honest."""

from __future__ import annotations

from random import Random

import pytest

from stages._params import load_params
from stages.data.prompts import load_tokenizer, prompt_ids
from stages.engines.base import DecodeSpec, Request, open_engine
from stages.tiny.chains import END_THINK, MODULUS, VOCABULARY, prompt_text, random_chain, solve, write_pass
from stages.tiny.fidelity import compare_with_generator, overall
from tests.paths import ROOT

pytestmark = pytest.mark.model
PARAMS = load_params(ROOT)
MODEL = ROOT / "models" / "tiny"


def test_files_are_small_and_safe():
    files = {path.name: path.stat().st_size for path in MODEL.iterdir()}
    assert files["model.safetensors"] <= 4_000_000
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)


def test_the_librarys_own_loader_reads_the_same_tokenizer():
    """vLLM and everyone else use AutoTokenizer; it must give the ids that the model was trained on."""
    from transformers import AutoTokenizer

    chain = random_chain(8, Random(1))
    words = prompt_text(chain).split()
    ids = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)(" ".join(words), add_special_tokens=False)
    assert [VOCABULARY[token] for token in ids["input_ids"]] == words
    assert prompt_ids(load_tokenizer(MODEL), " ".join(words))[1:-1] == tuple(ids["input_ids"])


def test_within_its_generators_accuracy_and_length():
    rows = compare_with_generator(ROOT, PARAMS, 500, seed=21)
    mean = overall(rows)
    assert abs(mean.accuracy - mean.generator_accuracy) <= 0.01
    assert abs(mean.mean_tokens / mean.generator_tokens - 1) <= 0.10
    for row in rows:
        assert abs(row.accuracy - row.generator_accuracy) <= 0.03, row


def test_the_answer_follows_the_thought():
    """One pass with a wrong step, the thought then closed: the answer is the corrupted result, not the true one."""
    rng, requests, corrupted = Random(2), [], {}
    start = prompt_ids(load_tokenizer(MODEL), "Q: 1 a + 1 ?")
    bos, think = start[0], start[-1]
    ids = {word: index for index, word in enumerate(VOCABULARY)}
    while len(requests) < 400:
        chain = random_chain(1 + len(requests) % 8, rng)
        wrong_at = rng.randrange(chain.length)
        errors = tuple(float(i == wrong_at) for i in range(8))
        words, result = write_pass(chain, rng, errors)
        assert result != solve(chain)
        prefix = [*prompt_text(chain).split()], [*words, ".", END_THINK, "answer"]
        tokens = (bos, *(ids[w] for w in prefix[0]), think, *(ids[w] for w in prefix[1]))
        requests.append(Request(f"c{len(requests)}", 0, tokens))
        corrupted[requests[-1].problem_id] = str(result)
    with open_engine(PARAMS, MODEL) as engine:
        drawn = list(engine.generate(requests, DecodeSpec(1.0, 1.0, 1), 3))
    assert {VOCABULARY[r.token_ids[0]] for r in drawn} <= {str(value) for value in range(MODULUS)}
    followed = sum(VOCABULARY[r.token_ids[0]] == corrupted[r.problem_id] for r in drawn)
    assert followed >= 0.95 * len(drawn)
