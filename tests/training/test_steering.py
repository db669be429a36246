"""The row of a control evaluation: what it records under each controller, and that it is all the next one needs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from stages._params import Params, check_params, read_yaml
from stages.train import COLUMNS
from stages.training.control import Score, loss_error, standard_error
from stages.training.screening import estimate
from stages.training.steering import decide
from tests.paths import ROOT

BOUNDS = {"short_tokens": 60.0, "long_tokens": 160.0, "short_accuracy": 0.92, "long_accuracy": 0.95}
SCHEDULE = {"bounds": BOUNDS, "eta": 4.0, "weights": {"system1": 0.5, "system2": 0.5}}
NUM_QUESTIONS = 400


def params(**ratio: Any) -> Params:
    document = copy.deepcopy(read_yaml(ROOT / "params.yaml"))
    document["ratio"] |= ratio
    return check_params(document, "params.yaml")


def score(num_correct: int, tokens: float) -> Score:
    """The first `num_correct` of the questions are answered correctly; lengths differ a little."""
    correct = (1.0,) * num_correct + (0.0,) * (NUM_QUESTIONS - num_correct)
    return Score(correct, tuple(tokens + index % 7 for index in range(NUM_QUESTIONS)), 0.0)


BASE = score(380, 160.0)
MEASURED = [score(380, 140.0), score(384, 120.0), score(340, 90.0), score(370, 80.0), score(382, 85.0)]


def rows_of(settings: Params, measured: list[Score], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` and one more for each of `measured`."""
    rows = list(rows)
    for each in measured:
        found = estimate(BASE, range(NUM_QUESTIONS), each, 1)
        rows.append(decide(settings, SCHEDULE, rows, 16 * (len(rows) + 1), found))
    return rows


def test_lagrangian_moves_with_the_constraint() -> None:
    rows = rows_of(params(controller="lagrangian"), MEASURED, [])
    shares = [row["next_short_share"] for row in rows]
    assert 0.5 < shares[0] < shares[1]
    assert shares[2] < shares[1] and rows[2]["benefit2"] > 0.0 == rows[2]["benefit1"]
    assert rows[1]["benefit1"] > 0.0 == rows[1]["benefit2"]
    assert all(0.1 <= share <= 0.9 for share in shares)
    multipliers = [row["multiplier"] for row in rows]
    assert multipliers[2] > multipliers[1] < multipliers[0]


@pytest.mark.parametrize("controller", ["paper", "robust", "lagrangian"])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_resumed_run_decides_alike(controller: str, killed_after: int) -> None:
    """From rows that went through the log as JSON."""
    settings = params(controller=controller)
    whole = rows_of(settings, MEASURED, [])
    saved = json.loads(json.dumps(whole[:killed_after]))
    assert rows_of(settings, MEASURED[killed_after:], saved) == whole


@pytest.mark.parametrize("controller", ["paper", "robust"])
def test_rows_of_the_former_controllers_have_the_former_columns(controller: str) -> None:
    (row,) = rows_of(params(controller=controller), MEASURED[:1], [])
    training = {"example_share", "token_share", "training_loss"}
    assert row.keys() == {*COLUMNS} - training
    assert row["benefit1_se"] == MEASURED[0].tokens_error / (160.0 - 60.0)
    assert row["benefit2_se"] == MEASURED[0].accuracy_error / (0.95 - 0.92)


def test_the_error_of_the_loss_is_paired_by_question() -> None:
    """32 of 400 questions flipped, all to wrong: far less noise than two independent accuracies have."""
    flipped = score(348, 100.0)
    paired = loss_error(BASE, flipped)
    assert paired == pytest.approx(standard_error([1.0] * 32 + [0.0] * 368))
    assert paired < (BASE.accuracy_error**2 + flipped.accuracy_error**2) ** 0.5
    assert loss_error(BASE, BASE) == 0.0


@pytest.mark.parametrize("controller", ["paper", "robust", "lagrangian"])
def test_a_part_of_the_set_moves_the_ratio_the_same_way_with_wider_errors(controller: str) -> None:
    settings, questions = params(controller=controller), range(0, NUM_QUESTIONS, 8)
    part = Score(
        tuple(MEASURED[0].question_accuracy[index] for index in questions),
        tuple(MEASURED[0].question_tokens[index] for index in questions),
        0.0,
    )
    whole = decide(settings, SCHEDULE, [], 16, estimate(BASE, range(NUM_QUESTIONS), MEASURED[0], 1))
    row = decide(settings, SCHEDULE, [], 16, estimate(BASE, questions, part, 1))
    assert row["mean_tokens"] == pytest.approx(whole["mean_tokens"])
    assert row["accuracy_se"] > 2 * whole["accuracy_se"] and row["benefit2_se"] > 1.3 * whole["benefit2_se"]
    assert 0.5 <= row["next_short_share"] <= whole["next_short_share"] + 1e-9


def test_a_fixed_schedule_is_not_moved_by_the_multiplier() -> None:
    rows = rows_of(params(controller="lagrangian", schedule="static"), MEASURED, [])
    assert {row["next_short_share"] for row in rows} == {0.5}
