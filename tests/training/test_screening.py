"""Which control questions an update asks, and that their answers are read without bias and with honest errors."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter

import numpy as np
import pytest

from stages.training.control import Score, control_set, loss_error
from stages.training.screening import asked, estimate, is_screened, num_asked, part
from tests.paths import ROOT
from tests.training.toy_stage import toy_params

NUM_QUESTIONS, NUM_ASKED, NUM_SAMPLES = 512, 32, 2


def population(rng: random.Random, accuracy: float) -> tuple[list[float], list[float]]:
    """Per question: chance of a correct answer, and mean tokens, which vary fivefold."""
    chances = [min(1.0, max(0.0, rng.gauss(accuracy, 0.15))) for _ in range(NUM_QUESTIONS)]
    return chances, [rng.uniform(50.0, 250.0) for _ in range(NUM_QUESTIONS)]


def drawn(rng: random.Random, chances: list[float], lengths: list[float], num_samples: int) -> Score:
    correct = [statistics.fmean(float(rng.random() < chance) for _ in range(num_samples)) for chance in chances]
    tokens = [statistics.fmean(rng.gauss(length, 20.0) for _ in range(num_samples)) for length in lengths]
    return Score(tuple(correct), tuple(tokens), 0.0)


def chosen(values: list[float], questions: list[int]) -> list[float]:
    return [values[index] for index in questions]


def test_questions_are_asked_equally_often_in_an_order_that_the_seed_decides():
    params = toy_params(ratio={"control_questions": 12})
    updates = [asked(params, 40, update) for update in range(10)]
    assert set(Counter(index for update in updates for index in update).values()) == {3}, "10 x 12 of 40"
    assert all(update == sorted(set(update)) and len(update) == 12 for update in updates)
    assert updates == [asked(params, 40, update) for update in range(10)]
    assert updates[0] != updates[1] != asked(params.model_copy(update={"seed": 2}), 40, 1)


@pytest.mark.parametrize("wanted", [None, 40, 41])
def test_a_set_that_is_not_larger_is_asked_whole(wanted):
    params = toy_params(ratio={"control_questions": wanted})
    assert [asked(params, 40, update) for update in (0, 7)] == [list(range(40))] * 2
    assert num_asked(params, 40) == 40


def test_a_part_keeps_items_and_decoding():
    params = toy_params(ratio={"control_questions": 32})
    control = control_set(ROOT, params)
    some = part(control, [5, 300])
    assert is_screened(params, control) and not is_screened(params, some)
    assert some.problems == (control.problems[5], control.problems[300]) and some.spec == control.spec


def test_all_questions_are_read_as_they_are():
    rng = random.Random(1)
    chances, lengths = population(rng, 0.8)
    base, measured = (drawn(rng, chances, lengths, 4) for _ in range(2))
    found = estimate(base, range(NUM_QUESTIONS), measured, 4)
    assert (found.accuracy, found.accuracy_error) == (measured.accuracy, measured.accuracy_error)
    assert (found.mean_tokens, found.tokens_error) == (measured.mean_tokens, measured.tokens_error)
    assert found.loss_error == loss_error(base, measured)


def test_the_estimate_is_the_regression_line_at_the_base_mean():
    """Against numpy's least squares and the textbook variance of a fitted mean."""
    rng = random.Random(2)
    chances, lengths = population(rng, 0.8)
    base = drawn(rng, chances, lengths, 4)
    questions = sorted(rng.sample(range(NUM_QUESTIONS), NUM_ASKED))
    measured = drawn(rng, chosen(chances, questions), chosen(lengths, questions), NUM_SAMPLES)
    found = estimate(base, questions, measured, NUM_SAMPLES)
    for before, after, value, error in (
        (base.question_tokens, measured.question_tokens, found.mean_tokens, found.tokens_error),
        (base.question_accuracy, measured.question_accuracy, found.accuracy, found.accuracy_error),
    ):
        x, y = np.array([before[index] for index in questions]), np.array(after)
        slope, start = np.polyfit(x, y, 1)
        target = float(np.mean(before))
        residuals = y - start - slope * x
        spread = math.sqrt(float(residuals @ residuals) / (NUM_ASKED - 2))
        wanted = spread * math.sqrt(1 / NUM_ASKED + (target - x.mean()) ** 2 / float(((x - x.mean()) ** 2).sum()))
        assert value == pytest.approx(start + slope * target)
        assert error == pytest.approx(max(wanted, error if before is base.question_accuracy else 0.0))
    binomial = math.sqrt(base.accuracy * (1 - base.accuracy) / (NUM_ASKED * NUM_SAMPLES))
    assert found.accuracy_error == found.loss_error >= binomial


def test_estimates_are_unbiased_and_as_certain_as_they_say():
    """Shorter and less accurate than the base: 400 parts, each with fresh answers. Tokens are known better than from their
    mean alone."""
    rng = random.Random(3)
    chances, lengths = population(rng, 0.85)
    after = [0.95 * chance for chance in chances], [0.4 * length for length in lengths]
    base = drawn(rng, chances, lengths, 4)
    truth = statistics.fmean(after[0]), statistics.fmean(after[1])
    misses: list[tuple[float, float]] = []
    plain: list[float] = []
    errors: list[float] = []
    for _ in range(400):
        questions = sorted(rng.sample(range(NUM_QUESTIONS), NUM_ASKED))
        measured = drawn(rng, chosen(after[0], questions), chosen(after[1], questions), NUM_SAMPLES)
        found = estimate(base, questions, measured, NUM_SAMPLES)
        misses.append(
            (
                (found.accuracy - truth[0]) / found.accuracy_error,
                (found.mean_tokens - truth[1]) / found.tokens_error,
            )
        )
        plain.append(measured.mean_tokens - truth[1])
        errors.append(found.mean_tokens - truth[1])
    for each in zip(*misses, strict=True):
        assert abs(statistics.fmean(each)) < 0.2
        assert 0.75 < statistics.pstdev(each) < 1.15
        assert 0.92 < sum(abs(miss) < 1.96 for miss in each) / len(each) < 0.99
    assert statistics.pstdev(errors) < 0.6 * statistics.pstdev(plain)


@pytest.mark.parametrize("after", [1.0, 0.0])
def test_answers_that_are_all_alike_are_not_certain(after):
    """Of 64 answers at an accuracy of .99 about half of all draws hold no wrong one."""
    base = Score((1.0,) * 508 + (0.0,) * 4, tuple(map(float, range(512))), 0.0)
    measured = Score((after,) * NUM_ASKED, (50.0,) * NUM_ASKED, 0.0)
    found = estimate(base, range(NUM_ASKED), measured, NUM_SAMPLES)
    assert found.accuracy == after
    assert found.loss_error == pytest.approx(math.sqrt(508 / 512 * 4 / 512 / 64))
    perfect = Score((1.0,) * 512, base.question_tokens, 0.0)
    least = estimate(perfect, range(NUM_ASKED), measured, NUM_SAMPLES).loss_error
    assert least == pytest.approx(math.sqrt((0.5 / 64) * (63.5 / 64) / 64))


def test_an_accuracy_stays_an_accuracy():
    """The part was harder for the base model than the whole set, and all of it was solved: the line ends above 1."""
    base = Score((1.0,) * 480 + (0.75, 0.5) * 16, tuple(map(float, range(512))), 0.0)
    questions = list(range(480, 512))
    measured = Score((1.0, 0.5) * 16, (50.0,) * NUM_ASKED, 0.0)
    assert estimate(base, questions, measured, NUM_SAMPLES).accuracy == 1.0
