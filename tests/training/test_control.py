"""Scores, the size a control set needs, and the choice of the checkpoint."""

from __future__ import annotations

import random
import statistics

import pytest

from stages._errors import StageFailed
from stages.training.control import Score, require_resolution, standard_error
from stages.training.selection import select_checkpoint


def score(accuracy, tokens=100.0, num_questions=400):
    """A score in which a share `accuracy` of the questions is answered correctly."""
    num_correct = round(accuracy * num_questions)
    correct = (1.0,) * num_correct + (0.0,) * (num_questions - num_correct)
    return Score(correct, (tokens,) * num_questions, 0.0)


def test_standard_errors_are_those_of_the_statistics_module():
    values = [random.Random(1).gauss(3, 2) for _ in range(50)]
    assert standard_error(values) == pytest.approx(statistics.stdev(values) / 50**0.5)
    assert standard_error([1.0]) == float("inf")


def test_the_shortest_checkpoint_that_lost_nothing_is_taken():
    base = score(0.95)
    scores = [(16, score(0.95, 90)), (32, score(0.95, 60)), (48, score(0.80, 40)), (64, score(0.96, 60))]
    chosen = select_checkpoint(base, scores, margin=0.02, alpha=0.05)
    assert (chosen.step, chosen.fallback, chosen.num_eligible) == (32, False, 3)


def test_without_an_eligible_checkpoint_the_most_accurate_one_is_taken_and_flagged():
    base = score(0.95)
    chosen = select_checkpoint(base, [(16, score(0.7, 50)), (32, score(0.8, 60))], margin=0.02, alpha=0.05)
    assert (chosen.step, chosen.fallback, chosen.num_eligible) == (32, True, 0)


def test_a_control_set_that_cannot_decide_the_margin_is_refused():
    """1,000 questions decide a 1-point margin near .98 with 4 answers each; 100 do not, and the message says how many do."""
    require_resolution(score(0.98, num_questions=1000), 4, margin=0.01, alpha=0.05, power=0.8)
    with pytest.raises(StageFailed, match="use at least") as failure:
        require_resolution(score(0.98, num_questions=100), 4, margin=0.01, alpha=0.05, power=0.8)
    wanted = int(str(failure.value).split("use at least ")[1].split()[0])
    require_resolution(score(0.98, num_questions=wanted + 50), 4, margin=0.01, alpha=0.05, power=0.8)
    with pytest.raises(StageFailed):
        require_resolution(score(0.98, num_questions=wanted - 50), 4, margin=0.01, alpha=0.05, power=0.8)


def test_the_promised_power_is_kept():
    """Simulated: two equally accurate models on a control set of just the required size pass with about that power."""
    rng, passed, trials = random.Random(5), 0, 150
    accuracy, margin, num_questions = 0.95, 0.04, 368
    require_resolution(score(accuracy, num_questions=num_questions), 1, margin, 0.05, 0.8)
    for _ in range(trials):
        models = [
            Score(tuple(float(rng.random() < accuracy) for _ in range(num_questions)), (1.0,) * num_questions, 0.0)
            for _ in range(2)
        ]
        passed += not select_checkpoint(models[0], [(1, models[1])], margin, 0.05).fallback
    assert 0.65 <= passed / trials <= 0.92
