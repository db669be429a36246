"""The word-level tokenizer of the tiny reasoner, as an ordinary `tokenizers` file with a chat template."""

from __future__ import annotations

from typing import Any

from stages.tiny.chains import BOS, EOS, PAD, THINK, UNK, VOCABULARY

# One user turn, then the opened thought: like the R1 templates, the prompt ends inside `<think>`.
CHAT_TEMPLATE = (
    "{{ bos_token }} {% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }} "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}" + THINK + "{% endif %}"
)


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` over `VOCABULARY`; ids are positions in that tuple."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )
