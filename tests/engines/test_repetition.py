"""Where an answer that repeats itself is cut: by the definition, token by token, and through the decode loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from stages.engines.base import DecodeSpec, Repetition, Request
from stages.engines.decoding import decode_batch, repetition_end


def by_definition(ids: list[int], repetition: Repetition) -> int | None:
    """The shortest prefix, without the last token, that ends in `min_count` copies of 1 to `max_pattern_size` tokens."""
    for end in range(1, len(ids)):
        for size in range(1, repetition.max_pattern_size + 1):
            copies = [ids[end - (n + 1) * size : end - n * size] for n in range(repetition.min_count)]
            if end >= size * repetition.min_count and all(copy == copies[0] for copy in copies):
                return end
    return None


@given(
    ids=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    size=st.integers(1, 6),
    count=st.integers(2, 5),
)
def test_the_cut_is_where_the_definition_says(ids: list[int], size: int, count: int) -> None:
    repetition = Repetition(size, count)
    assert repetition_end(ids, repetition) == by_definition(ids, repetition)


def test_without_the_parameter_nothing_is_cut() -> None:
    assert repetition_end([5] * 100, None) is None


@pytest.mark.model
def test_the_decode_loop_cuts_and_says_why() -> None:
    """A model whose weights are equal for every token repeats the first id for ever under greedy decoding."""
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    request = Request("a", 0, (1, 4))
    plain = DecodeSpec(0.0, 1.0, 30)
    (whole,) = decode_batch(model, [request], plain, 1, 4)
    assert (whole.token_ids, whole.finish_reason) == ((0,) * 30, "length")
    (cut,) = decode_batch(model, [request], DecodeSpec(0.0, 1.0, 30, Repetition(3, 5)), 1, 4)
    assert (cut.token_ids, cut.finish_reason) == ((0,) * 5, "repetition")
    assert plain.digest != DecodeSpec(0.0, 1.0, 30, Repetition(3, 5)).digest
