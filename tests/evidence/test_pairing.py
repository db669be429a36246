"""Which questions of two models belong together, and what is said where they do not."""

from __future__ import annotations

import pytest

from stages.evidence.estimates import QuestionTable, question_tables
from stages.evidence.pairing import align, natural, pair_tasks
from stages.evidence.questions import QuestionRow

Answers = dict[str, list[tuple[bool, int]]]


def rows(questions: Answers, group: str = "", task: str = "t") -> list[QuestionRow]:
    return [
        QuestionRow(task, group, name, i, correct, tokens, False, False)
        for name, answers in questions.items()
        for i, (correct, tokens) in enumerate(answers)
    ]


def table(questions: Answers, group: str = "") -> QuestionTable:
    return question_tables(rows(questions, group))["t"]


BASE = table({"a": [(True, 10)], "b": [(False, 20)]})
DIFFERENT = [
    ({"a": [(True, 1)]}, "", "question_id"),
    ({"a": [(True, 1)], "b": [(True, 1)], "c": [(True, 1)]}, "", "question_id"),
    ({"a": [(True, 1)] * 2, "b": [(True, 1)] * 2}, "", "sample_index"),
    ({"a": [(True, 1)], "b": [(True, 1)]}, "other", "group"),
    ({"x": [(True, 1)]}, "", "question_id"),
]


def test_pairs_by_id_whatever_the_order() -> None:
    (base, candidate), left_out = align(BASE, table({"b": [(True, 2)], "a": [(False, 1)]}))
    assert base.question_ids == candidate.question_ids == ("a", "b")
    assert candidate.tokens.tolist() == [[1], [2]]
    assert left_out == []


@pytest.mark.parametrize(("questions", "group", "field"), DIFFERENT)
def test_names_what_differs(questions: Answers, group: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        align(BASE, table(questions, group))


@pytest.mark.parametrize(
    ("questions", "group", "kept"), [(*DIFFERENT[0][:2], 1), (*DIFFERENT[1][:2], 2), (*DIFFERENT[2][:2], 2)]
)
def test_allowed_mismatch_keeps_what_is_common_and_says_so(questions: Answers, group: str, kept: int) -> None:
    (base, candidate), left_out = align(BASE, table(questions, group), allow_mismatch=True)
    assert base.num_questions == candidate.num_questions == kept
    assert len(left_out) == 1


def test_nothing_in_common_is_refused_whatever_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"^question_id: .* no question in common"):
        align(BASE, table({"x": [(True, 1)]}), allow_mismatch=True)
    other = question_tables(rows({"a": [(True, 1)]}, task="u"))
    with pytest.raises(ValueError, match=r"^task: no task in common, the baseline has t, the candidate u"):
        pair_tasks({"t": BASE}, other, allow_mismatch=True)


def test_tasks_of_one_side_are_refused_or_named() -> None:
    more = {"t": BASE, "u": BASE}
    with pytest.raises(ValueError, match=r"^task: u only in the candidate"):
        pair_tasks({"t": BASE}, more)
    pairs, left_out = pair_tasks(more, {"t": BASE}, allow_mismatch=True)
    assert [base.task for base, _ in pairs] == ["t"]
    assert left_out == ["task u is only in the baseline"]


def test_natural_order() -> None:
    assert sorted(["length-10", "length-2", "amc", "2b"], key=natural) == ["2b", "amc", "length-2", "length-10"]
