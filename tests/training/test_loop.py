"""The optimiser loop: loss on response tokens only, micro-batches that do not matter, and resuming bit for bit."""

import math

import pytest
import torch

from stages._params import load_params
from stages.core.mixing import Window
from stages.training.examples import Example, batch_at, collate, realised_shares
from stages.training.loop import Trainer
from tests.paths import ROOT
from tests.toy_model import save_random_model

pytestmark = pytest.mark.model


def params(**train):
    loaded = load_params(ROOT)
    return loaded.model_copy(update={"train": loaded.train.model_copy(update=train)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


def examples():
    short = [Example((1, 28, 5 + i), (30, 6 + i, 2)) for i in range(5)]
    long = [Example((1, 28, 5 + i), (30, 6 + i, 7, 8, 9, 10 + i, 2)) for i in range(7)]
    return {"system1": short, "system2": long}


def weights(trainer):
    return {name: value.clone() for name, value in trainer._model.state_dict().items()}


def test_prompt_and_padding_carry_no_loss():
    tensors = collate([Example((1, 2), (3, 4, 5)), Example((1,), (6,))], pad_id=0)
    assert tensors["labels"].tolist() == [[-100, -100, 3, 4, 5], [-100, 6, -100, -100, -100]]
    assert tensors["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]


def test_the_loss_is_the_mean_over_response_tokens(folder, tmp_path):
    """Against a plain per-example computation."""
    batch = examples()["system1"][:2] + examples()["system2"][:2]
    trainer = Trainer(params(), folder, tmp_path)
    total = count = 0.0
    with torch.no_grad():
        for example in batch:
            ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
            log_probs = torch.log_softmax(trainer._model(ids).logits[0], -1)
            for position in range(len(example.prompt_ids), ids.shape[1]):
                total -= float(log_probs[position - 1, ids[0, position]])
                count += 1
    assert trainer.train_step(batch) == pytest.approx(total / count, rel=1e-5)


def test_micro_batches_give_the_same_step(folder, tmp_path):
    batch = examples()["system1"][:3] + examples()["system2"][:3]
    found = []
    for size in (6, 2):
        trainer = Trainer(params(micro_batch_size=size), folder, tmp_path / str(size))
        trainer.train_step(batch)
        found.append(weights(trainer))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_a_resumed_run_has_the_same_weights_bit_for_bit(folder, tmp_path):
    windows = [Window(0, 0.5), Window(16, 0.8)]

    def run(trainer, stop):
        while trainer.step < stop:
            batch = batch_at(examples(), windows, trainer.step, 4, seed=1)
            trainer.train_step([example for _, example in batch])

    whole = Trainer(params(), folder, tmp_path / "whole")
    run(whole, 8)
    first = Trainer(params(), folder, tmp_path / "parts")
    run(first, 4)
    first.save(0.0)
    run(first, 6)  # lost: the run is killed before the next checkpoint
    second = Trainer(params(), folder, tmp_path / "parts")
    assert second.step == 4
    run(second, 8)
    resumed = weights(second)
    assert all(torch.equal(value, resumed[name]) for name, value in weights(whole).items())


def test_a_checkpoint_is_a_complete_model_folder(folder, tmp_path):
    trainer = Trainer(params(), folder, tmp_path)
    trainer.train_step(examples()["system1"])
    first = trainer.save(0.0)
    trainer.train_step(examples()["system1"])
    second = trainer.save(0.0)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (first / name).is_file() and (second / name).is_file()
    assert not (first / "optimizer.pt").exists() and (second / "optimizer.pt").exists()


def test_realised_shares_count_examples_and_response_tokens():
    short, long = examples()["system1"][0], examples()["system2"][0]
    example_share, token_share = realised_shares([[("system1", short), ("system2", long)], [("system2", long)]])
    assert math.isclose(example_share, 1 / 3)
    assert math.isclose(token_share, 3 / 17)
