"""Sizes of a decoder-only transformer, from its config.json or, before it is there, from what its repository publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages._errors import UserError


@dataclass(frozen=True)
class Shape:
    """Of a Llama or Qwen2 model: grouped-query attention, a gated feed-forward layer."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    tied: bool

    @property
    def layer_parameters(self) -> int:
        """Matrices of one layer; biases and norms are left out (less than a thousandth)."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def num_parameters(self) -> int:
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return embeddings + self.num_layers * self.layer_parameters

    def adapter_parameters(self, rank: int) -> int:
        """Of LoRA on every linear layer but the output layer."""
        heads, kv, hidden = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim, self.hidden_size
        ends = [(hidden, heads), (hidden, kv), (hidden, kv), (heads, hidden), *[(hidden, self.intermediate_size)] * 3]
        return self.num_layers * rank * sum(one + other for one, other in ends)

    def cache_bytes(self, bytes_per_number: int) -> int:
        """Of keys and values, per token."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_number


# config.json of the repositories, at the commits that profiles/ pins.
PUBLISHED = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(151936, 1536, 8960, 28, 12, 2, 128, tied=False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Shape(152064, 3584, 18944, 28, 28, 4, 128, tied=False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": Shape(152064, 5120, 13824, 48, 40, 8, 128, tied=False),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(151936, 1536, 8960, 28, 12, 2, 128, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": Shape(152064, 3584, 18944, 28, 28, 4, 128, tied=False),
    "Qwen/Qwen2.5-14B-Instruct": Shape(152064, 5120, 13824, 48, 40, 8, 128, tied=False),
}


def shape_of(config: Mapping[str, Any], place: str) -> Shape:
    """From a config.json; UserError, naming the `place`, where it is not one of a decoder-only transformer."""
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return Shape(
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            num_layers=int(config["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{place} does not give the sizes of the model ({error}), so its memory cannot be planned; take a model of the "
            "Llama or Qwen2 kind, or run without the plan."
        ) from None
