"""Prompts and training targets as token ids, for the two families of templates that the profiles use.

The tokenizers are built here: bytes in GPT-2's order (`!` is 0, so a printable ASCII character is its code less 33; a space
is 220, a line feed 198), then the family's special tokens. The templates are ours and do what the families' do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

from stages._errors import UserError
from stages.core.answers import split_thought
from stages.data.grades import close_id
from stages.data.prompts import decode_text, load_tokenizer, prompt_ids
from stages.training.examples import Example, row

R1_TOKENS = ["<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "</think>"]
BOS, EOS, USER, ASSISTANT, OPEN, CLOSE = range(256, 262)
CHAT_TOKENS = ["<|im_start|>", "<|im_end|>"]
IM_START, IM_END = 256, 257
LINE_FEED, SPACE = 198, 220

# As R1-Distill: one begin token, the thought is opened by the prompt, and a past assistant turn loses its thought.
R1_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# As Qwen2.5-Instruct: no begin token, a system turn if there is none.
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nHi<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def text_ids(text: str) -> list[int]:
    return [{" ": SPACE, "\n": LINE_FEED}.get(character, ord(character) - 33) for character in text]


def save(folder: Path, special: list[str], template: str, **tokens: str) -> Path:
    """A model folder with such a tokenizer, as `load_tokenizer` wants it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: place for place, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    # as published: the marks of the thought are no special tokens of the tokenizer
    tokenizer.add_tokens([AddedToken(text, special="think" not in text, normalized=False) for text in special])
    if "bos_token" in tokens:  # like R1-Distill's, it puts a begin token before whatever it is given
        begin = tokens["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **tokens)
    fast.save_pretrained(folder)
    LlamaConfig(
        vocab_size=300, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    ).save_pretrained(folder)
    write_weights(folder)
    return folder


def write_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"toy": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


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
