"""Grading: the tiny form, math-verify in worker processes, and verifiers that fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from multiprocessing import active_children

import pytest

from stages.verifier import grade as verifier
from stages.verifier.grade import NO_VERDICT, WRONG, Grade, Item, answer_text, grade_all, grade_each

TRACE = "a 9 + 8 = 6 ; b 6 * 4 = 2 ; . </think> answer 2 <eos>"


@pytest.mark.parametrize(
    ("text", "finish_reason", "gold", "grade"),
    [
        (TRACE, "stop", "2", Grade(True, "2", False)),
        (TRACE, "stop", "3", Grade(False, "2", False)),
        (TRACE, "length", "2", WRONG),
        (TRACE.replace(" <eos>", ""), "length", "2", WRONG),
        ("<think> " + TRACE, "stop", "2", Grade(True, "2", False)),
        (TRACE.replace("</think>", ""), "stop", "2", WRONG),
        (TRACE.replace("answer 2", "answer 2 ; 2"), "stop", "2", WRONG),
        (TRACE.replace("answer 2", ""), "stop", "2", WRONG),
        ("", "stop", "2", WRONG),
        ("</think> answer 10 <eos>", "stop", "10", Grade(True, "10", False)),
        (TRACE, "stop", "3 ||| 02", Grade(True, "2", False)),
        (TRACE, "stop", "3 ||| 22", Grade(False, "2", False)),
    ],
)
def test_exact(text: str, finish_reason: str, gold: str, grade: Grade) -> None:
    assert grade_all([(text, finish_reason, gold)], "exact", processes=2) == [grade]


def test_end_tokens_are_removed_and_thought_marks_are_not() -> None:
    for end in ("<eos>", "<|im_end|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>", " <eos> <pad> <pad>\n"):
        assert answer_text(f"x </think> answer 2{end}", "stop") == "answer 2"
    assert answer_text("x </think> answer 2 <think>", "stop").endswith("<think>")
    assert answer_text("x </think> 1 < 2", "stop") == "1 < 2"


def test_an_unknown_verifier_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown verifier"):
        grade_all([], "regex", processes=1)


def test_math_grades_in_order_and_counts_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over two workers: forms that stock scorers miss, guards, and a response that never ends by itself."""
    monkeypatch.setattr(verifier, "CPU_SECONDS", 2.0)
    endless = r"</think> \boxed{9^{9^{9^9}}}"
    cases: list[tuple[str, str, str, tuple[bool, bool]]] = [
        (r"so </think> \[ \boxed{70} \]<|im_end|>", "stop", "070", (True, False)),
        (r"so </think> \boxed{\frac12}", "stop", "0.5", (True, False)),
        (r"so </think> The answer is $3$.", "stop", "3.0", (True, False)),
        (r"so </think> \boxed{\text{east}}", "stop", r"\text{east}", (True, False)),
        (r"so </think> \boxed{\$18.90}", "stop", r"\$18.90", (True, False)),
        (endless, "stop", "1", (False, True)),
        (r"\boxed{5} </think> \boxed{6}", "stop", "5", (False, False)),
        (r"\boxed{5}", "stop", "5", (True, False)),
        (r"\boxed{5}", "length", "5", (False, False)),
        (endless, "length", "1", (False, False)),
        (r"</think> \boxed{5}", "length", "5", (False, False)),
        (r"</think> no number here", "stop", "5", (False, False)),
        (r"</think> \boxed{5}", "stop", "$ $", (False, True)),
        (r"</think> \boxed{(1,\infty)}", "stop", r"$(1,\infty)$", (True, False)),
        (r"</think> \boxed{81}", "stop", "80 ||| 81", (True, False)),
        (r"</think> \boxed{80, 81}", "stop", "80 ||| 81", (False, False)),
        (r"</think> \boxed{80}", "stop", "80 ||| $ $", (False, True)),
        (r"</think> $\lambda = 3 \times 10^{-19}$ m", "stop", r"3 \times 10^{-19}", (True, False)),
        (r"</think> \boxed{3 \times 10^{-25}}", "stop", r"3 \times 10^{-19}", (False, False)),
        (r"</think> \boxed{0.000333}", "stop", r"\frac{1}{3000}", (True, False)),
        (r"</think> \boxed{10^{400}}", "stop", "10^{400}", (True, False)),
        (endless, "stop", "1", (False, True)),  # last of its share
    ]
    grades = grade_all([case[:3] for case in cases], "math", processes=2)
    assert [(grade.correct, grade.error) for grade in grades] == [case[3] for case in cases]
    assert grades[5] == NO_VERDICT and grades[0].answer == "70"


def test_math_of_nothing_starts_no_process() -> None:
    assert grade_all([], "math", processes=4) == []


@pytest.mark.parametrize(("limit", "other"), [("CPU_SECONDS", "CLOCK_SECONDS"), ("CLOCK_SECONDS", "CPU_SECONDS")])
def test_either_limit_ends_a_response_without_a_verdict(
    monkeypatch: pytest.MonkeyPatch, limit: str, other: str
) -> None:
    monkeypatch.setattr(verifier, limit, 1.0)
    monkeypatch.setattr(verifier, other, 3600.0)
    items = [(r"\boxed{9^{9^{9^9}}}", "stop", "1"), (r"\boxed{1}", "stop", "1")]
    assert [(grade.correct, grade.error) for grade in grade_all(items, "math", 1)] == [(False, True), (True, False)]


def test_every_answer_is_counted_once_though_a_worker_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "CPU_SECONDS", 1.0)
    right, endless = (r"\boxed{5}", "stop", "5"), (r"\boxed{9^{9^{9^9}}}", "stop", "1")
    counted: list[int] = []
    grades = grade_all([right, endless, right, right], "math", 1, lambda: counted.append(1))
    assert [grade.error for grade in grades] == [False, True, False, False]
    assert len(counted) == 4


def test_how_the_gold_was_read_is_told() -> None:
    golds = {"3.0": "3", r"\frac12": "1/2", "4210_5": "4210_5", r"\text{east}": r"east", "80 ||| 81": "80 or 81"}
    grades = grade_all([(r"\boxed{0}", "stop", gold) for gold in golds], "math", processes=1)
    assert [grade.gold for grade in grades] == list(golds.values())


def numbered(number: int, taken: list[int]) -> Iterator[Item]:
    """Responses of which every third is right; `taken` tells how many were asked for."""
    for index in range(number):
        taken.append(index)
        yield rf"\boxed{{{index % 3}}}", "stop", "1"


def test_grades_come_in_order_before_all_responses_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_WAITING", 2)
    taken: list[int] = []
    with closing(grade_each(numbered(203, taken), "math", processes=2)) as grades:
        first = next(grades)
        assert len(taken) <= 2 * 2 * verifier.CHUNK
        assert [grade.correct for grade in (first, *grades)] == [index % 3 == 1 for index in range(203)]


def test_workers_end_when_no_more_grades_are_taken() -> None:
    before = set(active_children())
    with closing(grade_each(numbered(10_000, []), "math", processes=2)) as grades:
        next(grades)
        assert len(set(active_children()) - before) == 2
    assert set(active_children()) <= before


@pytest.mark.parametrize("place", [0, 3, 7])
def test_only_the_response_that_a_worker_died_of_is_without_a_verdict(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(verifier, "CPU_SECONDS", 1.0)
    items = list(numbered(2 * verifier.CHUNK + 1, []))
    items[place] = (r"\boxed{9^{9^{9^9}}}", "stop", "1")
    counted: list[int] = []
    grades = grade_all(items, "math", 1, lambda: counted.append(1))
    assert [index for index, grade in enumerate(grades) if grade.error] == [place]
    assert [grade.correct for grade in grades] == [index % 3 == 1 and index != place for index in range(len(items))]
    assert len(counted) == len(items)


def test_exact_grades_one_response_at_a_time() -> None:
    taken: list[int] = []
    assert next(grade_each(numbered(5, taken), "exact", processes=2)) == WRONG
    assert taken == [0]
