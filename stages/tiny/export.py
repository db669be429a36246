"""The trained reasoner as it is shipped: a Llama model whose heads have a size that every engine serves.

Takes the model that `stages.tiny.pretrain` trains, gives the same function in another form; no files.
"""

from __future__ import annotations

import math
from typing import Any

HEAD_SIZE = 32  # vLLM's attention on CPU serves 32, 64, 80 and larger (0.31.0); the model is trained with less


def exported(model: Any) -> Any:
    """The same function as a Llama model with attention biases (the output bias is zero) and padded heads.

    transformers 5.17 forces Qwen2's byte-pair tokenizer on every folder whose config says qwen2, whatever its
    tokenizer files say; a Llama folder keeps the word-level tokenizer under `AutoTokenizer`, and so under vLLM.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    kept = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "tie_word_embeddings", "rms_norm_eps"),
        *("bos_token_id", "eos_token_id", "pad_token_id"),
    )
    old = getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
    new = max(old, HEAD_SIZE)
    rope = dict(model.config.rope_parameters) | {"rope_theta": padded_theta(model.config, old, new)}
    settings = {name: getattr(model.config, name) for name in kept}
    config = LlamaConfig(**settings, attention_bias=True, head_dim=new, rope_parameters=rope)
    llama = LlamaForCausalLM(config)
    state = {name: padded(name, tensor, old, new) for name, tensor in model.state_dict().items()}
    missing, unexpected = llama.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("o_proj.bias") for name in missing), (missing, unexpected)
    for layer in llama.model.layers:
        layer.self_attn.o_proj.bias.data.zero_()
    return llama


def padded_theta(config: Any, old: int, new: int) -> float:
    """Rotary base with which the first `old / 2` of `new / 2` frequencies are what they were: theta^(-2 i / size)."""
    return float(config.rope_parameters["rope_theta"] ** (new / old))


def padded(name: str, tensor: Any, old: int, new: int) -> Any:
    """A weight or bias with zeros where a head grew from `old` to `new`; others as they are.

    Rotary embedding pairs entry i of a head with entry i + size / 2, so each half grows at its end. Scores are divided
    by the root of the head size, which the queries make up for.
    """
    import torch

    projection = next((part for part in ("q_proj", "k_proj", "v_proj", "o_proj") if f".{part}." in name), None)
    if projection is None or old == new or name.endswith("o_proj.bias"):
        return tensor
    by_head = tensor.T if projection == "o_proj" else tensor  # (heads * size, ...)
    halves = by_head.reshape(-1, old // 2, *by_head.shape[1:])
    zeros = halves.new_zeros((halves.shape[0], (new - old) // 2, *halves.shape[2:]))
    grown = torch.cat([halves, zeros], dim=1).reshape(-1, *by_head.shape[1:])
    if projection == "q_proj":
        grown = grown * math.sqrt(new / old)
    return (grown.T if projection == "o_proj" else grown).contiguous()
