"""DeepSeek-R1-Distill-Qwen and Qwen2.5-Instruct in miniature: their architecture and the behaviour of their templates.

The tokenizers are of bytes in GPT-2's order (`!` is 0, so a printable ASCII character is its code less 33; a space is 220, a
line feed 198), then the family's special tokens. The templates are ours and do what the families' do. The models are made in
seconds, and know one thing: to answer 7, the one after a thought of any length, the other at once and less often rightly.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

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


def save_tokenizer(folder: Path, special: list[str], template: str, **tokens: str) -> None:
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
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **tokens).save_pretrained(folder)


def r1_answer(chance: random.Random) -> list[int]:
    """A thought of 1 to 12 words, then the answer, wrong once in ten times."""
    answer = "7" if chance.random() < 0.9 else "8"
    thought = text_ids("so " * chance.randint(1, 12))
    return [*thought, LINE_FEED, CLOSE, *text_ids(rf"\boxed{{{answer}}}"), EOS]


def chat_answer(chance: random.Random) -> list[int]:
    """No thought, and wrong every other time."""
    return [*text_ids(rf"\boxed{{{'7' if chance.random() < 0.5 else '8'}}}"), IM_END]


def save_mini(folder: Path, kind: str, prompts: list[str], steps: int = 150) -> Path:
    """A Qwen2 model of two layers, `kind` r1 or chat, trained for `steps` steps to answer `prompts` as its kind does."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    from stages.data.prompts import load_tokenizer, prompt_ids

    r1 = kind == "r1"
    if r1:
        save_tokenizer(folder, R1_TOKENS, R1_TEMPLATE, bos_token="<|begin|>", eos_token="<|end|>")
    else:
        save_tokenizer(folder, CHAT_TOKENS, CHAT_TEMPLATE, eos_token="<|im_end|>")
    end = EOS if r1 else IM_END
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=262,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=BOS if r1 else None,
            eos_token_id=end,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=end)
    model.save_pretrained(folder)  # a whole folder, for the tokenizer to be loaded from
    tokenizer = load_tokenizer(folder)
    fit(model, [list(prompt_ids(tokenizer, prompt)) for prompt in prompts], r1_answer if r1 else chat_answer, steps)
    model.save_pretrained(folder)
    return folder


def fit(model: object, prompts: list[list[int]], answer: Callable[[random.Random], list[int]], steps: int) -> None:
    """Cross-entropy on the answers of 16 random prompts per step."""
    import torch

    assert isinstance(model, torch.nn.Module)
    chance = random.Random(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(steps):
        rows = [(prompt, answer(chance)) for prompt in chance.choices(prompts, k=16)]
        width = max(len(prompt) + len(ids) for prompt, ids in rows)
        inputs = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), width), -100)
        for place, (prompt, ids) in enumerate(rows):
            inputs[place, : len(prompt) + len(ids)] = torch.tensor([*prompt, *ids])
            labels[place, len(prompt) : len(prompt) + len(ids)] = torch.tensor(ids)
        model(input_ids=inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
