"""The trainer: loss on response tokens only, micro-batches and processes that do not matter, the mixture's own order."""

from __future__ import annotations

import pytest
import torch

from stages.core.mixing import Window
from stages.training.course import Course
from stages.training.examples import Batches, Example, Examples
from stages.training.snapshot import gather
from stages.training.trainer import MixtureTrainer
from tests.toy_model import save_random_model
from tests.training.toy_stage import toy_examples, toy_params

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


def trainer_of(folder, work, shares=(0.5, 0.8, 0.2), examples=None, **train):
    params = toy_params(train=train)
    settings = params.train
    batches = Batches(examples or toy_examples(), settings.batch_size, params.seed, settings.unit)
    course = Course(settings.update_every, settings.batch_size, list(shares))
    return MixtureTrainer(params, folder, work, batches, course)


def trained(trainer):
    trainer.train_from(0)
    return gather(trainer, "float32")


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_the_loss_is_the_mean_over_response_tokens(folder, tmp_path):
    """Of the first step, against a plain per-example computation."""
    trainer = trainer_of(folder, tmp_path, max_steps=1, update_every=1)
    total = count = 0.0
    for _, example in trainer._batches.at(trainer._course.windows, 0):
        ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
        with torch.no_grad():
            log_probs = torch.log_softmax(trainer.model(ids).logits[0], -1)
        for position in range(len(example.prompt_ids), ids.shape[1]):
            total -= float(log_probs[position - 1, ids[0, position]])
            count += 1
    trainer.train_from(0)
    assert losses(trainer) == [pytest.approx(total / count, rel=1e-5)]


def test_a_step_is_that_of_a_hand_written_loop(folder, tmp_path):
    """Six steps of plain torch over the whole batch at once: the same weights up to rounding."""
    from transformers import AutoModelForCausalLM

    trainer = trainer_of(folder, tmp_path)
    settings = trainer._settings.train
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.0)
    for step in range(settings.max_steps):
        total, count = 0.0, 0
        for _, example in trainer._batches.at(trainer._course.windows, step):
            ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
            logits = model(ids).logits[0, len(example.prompt_ids) - 1 : -1]
            total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(example.token_ids), reduction="sum")
            count += len(example.token_ids)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, step / settings.warmup_steps)
        optimizer.step()
        optimizer.zero_grad()
    found = trained(trainer)
    for name, value in model.state_dict().items():
        assert torch.allclose(found[name], value, atol=2e-4), name


@pytest.mark.parametrize("other", [{"micro_batch_size": 1}, {"micro_batch_size": 4}, {"gradient_checkpointing": True}])
def test_how_a_batch_is_cut_does_not_matter(folder, tmp_path, other):
    whole, cut = trained(trainer_of(folder, tmp_path / "a")), trained(trainer_of(folder, tmp_path / "b", **other))
    assert all(torch.allclose(whole[name], cut[name], atol=2e-4) for name in whole)


def test_padding_free_rows_train_alike(folder, tmp_path):
    """flex_attention on a CPU has no backward pass, so the row is trained with sdpa, which masks it just the same."""
    padded = trainer_of(folder, tmp_path / "a")
    free = trainer_of(folder, tmp_path / "b")
    free.padding_free = free.data_collator.padding_free = True
    before, after = trained(padded), trained(free)
    assert losses(padded) == pytest.approx(losses(free), rel=1e-4)
    assert all(torch.allclose(before[name], after[name], atol=2e-4) for name in before)


def test_a_new_share_takes_effect_at_the_next_step(folder, tmp_path):
    """The last window asks for System-1 alone and is decided only when its first step is near."""
    trainer = trainer_of(folder, tmp_path, shares=(0.0,), max_steps=4)
    seen = []
    original = trainer.get_batch_samples

    def watched(iterator, number, device):
        if trainer.state.global_step == 2:
            trainer._course.shares.append(1.0)
        seen.append([name[0] for name in names(trainer)])
        return original(iterator, number, device)

    trainer.get_batch_samples = watched
    trainer.train_from(0)
    assert seen == [["l"] * 4, ["l"] * 4, ["s"] * 4, ["s"] * 4]


def names(trainer):
    return [pair[1].problem_id for pair in trainer._batches.at(trainer._course.windows, trainer.state.global_step)]


def test_the_unit_tokens_reaches_the_batches(folder, tmp_path):
    trainer = trainer_of(folder, tmp_path, unit="tokens", max_steps=60, update_every=60)
    pairs = [pair for step in range(60) for pair in trainer._batches.at([Window(0, 0.5)], step)]
    tokens = {"system1": 0, "system2": 0}
    for source, example in pairs:
        tokens[source] += len(example.token_ids)
    assert abs(tokens["system1"] - tokens["system2"]) <= 7


def test_a_loss_that_is_not_finite_names_the_examples(folder, tmp_path):
    """What the control loop asks for; that it does ask is in test_resume."""
    trainer = trainer_of(folder, tmp_path)
    said = trainer.broken(1, "loss")
    assert all(name in said for name in names(trainer)) and "step 1" in said and "checkpoint of step 0" in said


def test_an_example_without_a_prompt_is_scored_from_its_second_token(folder, tmp_path):
    """Nothing comes before the first; the mean is over all response tokens all the same."""
    alone = Examples({"system1": [Example("a", (), (5, 6, 7))], "system2": [Example("b", (), (5, 6, 7))]}, {})
    trainer = trainer_of(folder, tmp_path, examples=alone, max_steps=1, update_every=1)
    with torch.no_grad():
        logits = trainer.model(torch.tensor([[5, 6, 7]])).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor([6, 7]), reduction="sum") / 3
    trainer.train_from(0)
    assert losses(trainer) == [pytest.approx(float(expected), rel=1e-5)]
