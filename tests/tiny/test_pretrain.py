"""The recipe at a toy size: it learns, repeats itself byte for byte, and exports the function it trained."""

import pytest
import torch

from stages._params import load_params
from stages.tiny.build import build
from stages.tiny.export import exported
from stages.tiny.pretrain import batches, build_model, step_errors, training_sequence
from tests.paths import ROOT

pytestmark = pytest.mark.model
RECIPE = load_params(ROOT).tiny.model_copy(
    update={
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_layers": 1,
        "num_heads": 2,
        "num_steps": 12,
        "tokens_per_step": 1024,
        "warmup_steps": 2,
    }
)


def test_a_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        build(RECIPE, tmp_path / name / "model", tmp_path / name / "data")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {"model.safetensors", "tokenizer.json", "config.json", "test.jsonl"} <= {file.name for file in files}
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_exported_model_is_the_trained_function():
    model = build_model(RECIPE).eval()
    ids = torch.randint(6, 30, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, exported(model).eval()(ids).logits, atol=1e-6)


def test_labels_cover_the_response_only():
    from random import Random

    sequence, num_prompt = training_sequence(0.9, RECIPE, Random(0))
    ids, labels = next(batches(RECIPE, 0))
    assert ids.shape == labels.shape and ids.numel() <= RECIPE.tokens_per_step // RECIPE.num_processes
    learnt = labels != -100
    assert torch.equal(ids[learnt], labels[learnt])
    assert not learnt[:, 0].any() and 0 < num_prompt < len(sequence)


def test_surplus_errors_end_where_the_recipe_says():
    assert step_errors(0.0, RECIPE)[0] == RECIPE.surplus_error
    assert step_errors(RECIPE.surplus_until, RECIPE) == step_errors(1.0, RECIPE)
    assert step_errors(1.0, RECIPE)[7] == 0.05
