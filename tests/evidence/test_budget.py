"""The budget curve as arithmetic: what is cut, what it counts as, and the errors by question."""

from __future__ import annotations

import pytest

from stages.evidence.budget import budget_curve
from stages.evidence.estimates import question_tables
from stages.evidence.questions import QuestionRow


def answers(*questions: list[tuple[bool, int, bool]], task: str = "tiny") -> list[QuestionRow]:
    """Per question a list of (correct, tokens, truncated)."""
    return [
        QuestionRow(task, "", f"q{number}", sample, correct, tokens, truncated, False)
        for number, samples in enumerate(questions)
        for sample, (correct, tokens, truncated) in enumerate(samples)
    ]


ROWS = answers([(True, 10, False), (True, 30, False)], [(False, 20, False), (False, 40, True)])


def test_a_longer_answer_would_have_been_cut_and_wrong() -> None:
    curve = budget_curve(question_tables(ROWS), [30, 9, 10, 29, 40])
    found = {row["budget"]: (row["accuracy"], row["mean_tokens"], row["truncation_rate"]) for row in curve}
    assert found == {
        9: (0.0, 9.0, 1.0),
        10: (0.25, 10.0, 0.75),
        29: (0.25, (10 + 29 + 20 + 29) / 4, 0.5),
        30: (0.5, (10 + 30 + 20 + 30) / 4, 0.25),
        40: (0.5, 25.0, 0.25),
    }
    assert list(found) == [9, 10, 29, 30, 40]


def test_errors_are_by_question() -> None:
    (row,) = budget_curve(question_tables(ROWS), [30])
    assert row["accuracy_se"] == pytest.approx(0.5)  # questions at 1 and 0: sd .707 / sqrt 2
    assert row["mean_tokens_se"] == pytest.approx(2.5)  # 20 and 25
    (single,) = budget_curve(question_tables(ROWS[:2]), [30])
    assert (single["accuracy"], single["accuracy_se"], single["mean_tokens_se"]) == (1.0, None, None)


def test_an_answer_that_repeated_itself_stays_cut_at_every_budget() -> None:
    (row,) = budget_curve(question_tables(answers([(False, 5, True)])), [100])
    assert (row["truncation_rate"], row["mean_tokens"]) == (1.0, 5.0)


def test_every_task_has_its_rows() -> None:
    curve = budget_curve(question_tables([*ROWS, *answers([(True, 1, False)], task="other")]), [9, 9, 10])
    assert [(row["task"], row["budget"]) for row in curve] == [("tiny", 9), ("tiny", 10), ("other", 9), ("other", 10)]
    assert curve[2]["accuracy"] == 1.0
