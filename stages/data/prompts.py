"""From a problem's prompt to token ids, once, through the tokenizer's own chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages.data.model_folder import check_model


def load_tokenizer(model_path: Path) -> Any:
    """The tokenizer of a local model folder, as its tokenizer.json says; no network.

    `AutoTokenizer` puts Qwen2's own tokenizer class in place of whatever a folder with a Qwen2 model holds
    (transformers 5.17, MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS), and other ids come out without a word.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_model(model_path)
    if (model_path / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(str(model_path), local_files_only=True)
    return AutoTokenizer.from_pretrained(str(model_path), local_files_only=True)


def prompt_ids(tokenizer: Any, prompt: str) -> tuple[int, ...]:
    """Ids of one user turn with the generation prompt; exactly one BOS if the tokenizer has a BOS in its template."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = tokenizer.bos_token_id
    if bos is not None and ids.count(bos) > 1:
        raise UserError("The chat template gives a prompt with more than one BOS token; correct the model's template.")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise UserError(
            f"The tokenizer does not know a word of the prompt {prompt!r}; use prompts made for this model."
        )
    return ids


def decode_text(tokenizer: Any, token_ids: tuple[int, ...] | list[int]) -> str:
    """Text of generated ids with every special token kept, so that `</think>` can be found."""
    text: str = tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
