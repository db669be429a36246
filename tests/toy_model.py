"""A second, untrained reasoner in a folder: same tokenizer as the shipped one, a fraction of its size."""

from __future__ import annotations

from pathlib import Path


def save_random_model(folder: Path, seed: int = 0) -> Path:
    """A complete model folder (config, safetensors, tokenizer with chat template) with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from stages.tiny.build import write_tokenizer
    from stages.tiny.chains import BOS, EOS, PAD, VOCABULARY

    ids = {word: index for index, word in enumerate(VOCABULARY)}
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        pad_token_id=ids[PAD],
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
