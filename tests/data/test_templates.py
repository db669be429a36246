"""Prompts and training targets as token ids, for the two families of templates that the profiles use."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages._errors import UserError
from stages.core.answers import split_thought
from stages.data.grades import close_id
from stages.data.prompts import decode_text, load_tokenizer, prompt_ids
from stages.training.examples import Example, row
from tests.mini_r1 import (
    ASSISTANT,
    BOS,
    CHAT_TEMPLATE,
    CHAT_TOKENS,
    CLOSE,
    EOS,
    IM_END,
    IM_START,
    LINE_FEED,
    OPEN,
    R1_TEMPLATE,
    R1_TOKENS,
    USER,
    save_tokenizer,
    text_ids,
)


def save(folder: Path, special: list[str], template: str, **tokens: str) -> Path:
    """A model folder with such a tokenizer, and weights that nobody looks at."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    save_tokenizer(folder, special, template, **tokens)
    sizes = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8}
    LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1).save_pretrained(folder)
    save_file({"toy": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("r1"), R1_TOKENS, R1_TEMPLATE, bos_token="<|begin|>", eos_token="<|end|>")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("chat"), CHAT_TOKENS, CHAT_TEMPLATE, eos_token="<|im_end|>")


def test_an_r1_prompt_has_one_begin_token_and_opens_the_thought(r1: Path) -> None:
    tokenizer = load_tokenizer(r1)
    assert tokenizer("2")["input_ids"] == [BOS, 17], "it would add a second one to a rendered prompt"
    expected = [BOS, USER, 17, 10, 17, 30, ASSISTANT, OPEN, LINE_FEED]
    assert list(prompt_ids(tokenizer, "2+2?")) == expected


def test_the_instruction_is_part_of_the_user_turn(r1: Path) -> None:
    ids = list(prompt_ids(load_tokenizer(r1), "2+2?\nBox it."))
    assert ids == [BOS, USER, *text_ids("2+2?"), LINE_FEED, *text_ids("Box it."), ASSISTANT, OPEN, LINE_FEED]


def test_a_chat_prompt_has_no_begin_token_and_its_own_system_turn(chat: Path) -> None:
    ids = list(prompt_ids(load_tokenizer(chat), "2+2?"))
    turn = [IM_START, *text_ids("user\n2+2?"), IM_END, LINE_FEED]
    system = [IM_START, *text_ids("system\nHi"), IM_END, LINE_FEED]
    assert ids == [*system, *turn, IM_START, *text_ids("assistant\n")]


def test_a_training_target_is_the_generated_ids_and_no_template_sees_it(r1: Path) -> None:
    """The same answer through the template would lose its thought."""
    tokenizer = load_tokenizer(r1)
    answer = (*text_ids("so 4"), LINE_FEED, CLOSE, *text_ids("4"), EOS)
    example = Example("p", prompt_ids(tokenizer, "2+2?"), tuple(answer))
    target = row(example)
    assert target["input_ids"] == [BOS, USER, 17, 10, 17, 30, ASSISTANT, OPEN, LINE_FEED, *answer]
    assert target["labels"] == [-100] * 9 + list(answer)
    assert target["input_ids"].count(BOS) == 1 and target["labels"].count(EOS) == 1
    text = decode_text(tokenizer, answer)
    assert text == "so 4\n</think>4<|end|>"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": text.removesuffix("<|end|>")}],
        tokenize=False,
    )
    assert "so 4" not in rendered


def test_the_thought_ends_at_the_one_token_that_closes_it(r1: Path, chat: Path) -> None:
    assert close_id(r1) == CLOSE
    thought = split_thought("so 4\n</think>4<|end|>")
    assert thought.closed and thought.thought.strip() == "so 4"
    with pytest.raises(UserError, match="has no single token </think>, so thoughts cannot be measured"):
        close_id(chat)


def test_a_template_that_begins_twice_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, R1_TOKENS, "{{ bos_token }}" + R1_TEMPLATE, bos_token="<|begin|>", eos_token="<|end|>")
    with pytest.raises(UserError, match="more than one BOS token; correct the model's template"):
        prompt_ids(load_tokenizer(folder), "2+2?")
