"""Thoughts and answers, on hand-written strings and on real generations of two fine-tuned R1 7B models."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.answers import Thought, boxed, final_answer_exact, normalise, split_thought
from tests.paths import SHARED_DATA

Rows = list[dict[str, Any]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 2 + 3 = 5 . </think> answer 5", Thought("a 2 + 3 = 5 .", "answer 5", True)),
        ("<think> a </think> answer 5", Thought("a", "answer 5", True)),
        ("<think>\n\n</think>\n\nanswer 5", Thought("", "answer 5", True)),
        ("a 2 + 3", Thought("a 2 + 3", "", False)),
        ("<think> a 2 + 3", Thought("a 2 + 3", "", False)),
        ("", Thought("", "", False)),
        ("a </think> b </think> c", Thought("a </think> b", "c", True)),
        ("a </think>", Thought("a", "", True)),
    ],
)
def test_split_after_a_prompt_that_opens_the_thought(text: str, expected: Thought) -> None:
    assert split_thought(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("answer 5", Thought(None, "answer 5", False)),
        ("<think> a", Thought("a", "", False)),
        ("<think> a </think> answer 5", Thought("a", "answer 5", True)),
    ],
)
def test_split_when_the_model_opens_the_thought(text: str, expected: Thought) -> None:
    assert split_thought(text, opened_by_prompt=False) == expected


@settings(max_examples=200, deadline=None)
@given(thought=st.text(alphabet="ab <>/;=\n", max_size=30), answer=st.text(alphabet="ab 0-9\n", max_size=30))
def test_an_answer_comes_only_after_the_closing_mark(thought: str, answer: str) -> None:
    assert split_thought(f"{thought}</think>{answer}") == Thought(thought.strip(), answer.strip(), True)
    assert split_thought(thought).answer == ""


@pytest.mark.parametrize(("text", "expected"), [("answer 7", "7"), (" answer  10\n", "10"), ("answer -3", "-3")])
def test_exact_answer(text: str, expected: str) -> None:
    assert final_answer_exact(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "answer", "answer x", "answer 7 8", "answer 7 <eos>", "the answer 7", "answer7", "answer 7.0"]
)
def test_a_malformed_exact_answer_is_none(text: str) -> None:
    assert final_answer_exact(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{5\}", None),
        (r"\boxed{}", ""),
        (r"\boxed5", None),
        ("5", None),
    ],
)
def test_boxed(text: str, expected: str | None) -> None:
    assert boxed(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" 7 ", "7"),
        ("070", "70"),
        ("+7", "7"),
        ("7.0", "7"),
        ("-0", "0"),
        ("-007.", "-7"),
        ("1,234,567", "1234567"),
        ("1,23", "1,23"),
        ("0.50", "0.50"),
        (r"\frac12", r"\frac12"),
    ],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


@settings(max_examples=200, deadline=None)
@given(value=st.integers(-(10**12), 10**12))
def test_one_integer_has_one_form(value: int) -> None:
    assert {normalise(form) for form in (str(value), f"{value:,}", f"{value:+}", f"{value}.00")} == {str(value)}


@settings(max_examples=200, deadline=None)
@given(answer=st.text(alphabet="0123456789,.+- x", max_size=12))
def test_normalise_twice_is_once(answer: str) -> None:
    assert normalise(normalise(answer)) == normalise(answer)


@pytest.fixture(scope="module", params=["static-7b_amc23", "static-7b_math500", "tldr-7b_amc23", "tldr-7b_math500"])
def log(request: pytest.FixtureRequest) -> tuple[str, Rows]:
    """Name and rows (gold, responses, correct) of one run of github zzli2022/TLDR."""
    path = SHARED_DATA / "r1_logs" / f"{request.param}.jsonl.gz"
    if not path.is_file():
        pytest.skip("the R1 generations (../shared/data/r1_logs) are not beside this checkout")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return request.param, [json.loads(line) for line in lines]


def graded(rows: Rows) -> list[tuple[str, str, bool]]:
    """(response, gold, verdict of the authors' harness) over all samples."""
    return [
        (text, row["gold"], bool(correct))
        for row in rows
        for text, correct in zip(row["responses"], row["correct"], strict=True)
    ]


# Facts of the files: responses, those with </think>, and correct ones (by the authors' harness) without it.
COUNTS = {
    "static-7b_amc23": (320, 72, 172),
    "static-7b_math500": (500, 46, 382),
    "tldr-7b_amc23": (320, 198, 107),
    "tldr-7b_math500": (500, 139, 307),
}


def test_real_thoughts_split_without_loss(log: tuple[str, Rows]) -> None:
    name, rows = log
    samples = graded(rows)
    split = [(text, correct, split_thought(text)) for text, _, correct in samples]
    unclosed_but_correct = sum(correct and not thought.closed for _, correct, thought in split)
    assert (len(split), sum(thought.closed for *_, thought in split), unclosed_but_correct) == COUNTS[name]
    for text, _, thought in split:
        assert thought.closed == ("</think>" in text)
        assert thought.thought is not None
        mark = len("</think>") if thought.closed else 0
        kept = "".join((thought.thought + thought.answer).split())
        assert len(kept) == len("".join(text.split())) - mark
        assert thought.closed or thought.answer == ""


def test_real_boxed_answers_agree_with_the_authors_verdict(log: tuple[str, Rows]) -> None:
    """Exact comparison is stricter than their harness: it may miss a correct answer, it must not invent one."""
    found = [(boxed(text), gold, correct) for text, gold, correct in graded(rows_of(log))]
    equal = [correct for answer, gold, correct in found if answer is not None and normalise(answer) == normalise(gold)]
    assert sum(equal) / len(equal) > 0.99
    assert sum(equal) / sum(correct for *_, correct in found) > 0.7


def test_real_correct_answers_are_boxed(log: tuple[str, Rows]) -> None:
    answers = [boxed(text) for text, _, correct in graded(rows_of(log)) if correct]
    assert sum(answer is not None for answer in answers) / len(answers) > 0.97


def rows_of(log: tuple[str, Rows]) -> Rows:
    return log[1]
