"""The shipped form of the reasoner is the trained function, with heads of a size that vLLM serves."""

from __future__ import annotations

import pytest

from stages.tiny.export import HEAD_SIZE, exported
from tests.paths import ROOT


@pytest.mark.model
@pytest.mark.parametrize("num_heads", [2, 4])
def test_padding_heads_changes_no_answer(num_heads: int) -> None:
    """Biases too, and positions far out, where a wrong rotary base would show."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=41,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    trained = Qwen2ForCausalLM(config).eval()
    for layer in trained.model.layers:
        for part in ("q_proj", "k_proj", "v_proj"):
            torch.nn.init.normal_(getattr(layer.self_attn, part).bias)
    shipped = exported(trained).eval()
    assert shipped.config.head_dim == max(HEAD_SIZE, 48 // num_heads)
    ids = torch.randint(3, 41, (2, 600))
    with torch.no_grad():
        before, after = trained(ids).logits, shipped(ids).logits
    assert torch.allclose(before, after, atol=2e-3), float((before - after).abs().max())
    assert (before.argmax(-1) == after.argmax(-1)).float().mean() > 0.999


def test_the_shipped_model_has_heads_that_vllm_serves_on_a_cpu() -> None:
    from stages.data.model_folder import read_config

    assert read_config(ROOT / "models" / "tiny")["head_dim"] == HEAD_SIZE
