"""Real responses of two fine-tuned R1 models to MATH-500 and AMC, against their recorded verdicts and our own reading.

tests/verifier/golden/adjudicated.csv holds every response on which we and the recording differ: `judged` is what a person
decided from problem, gold and final answer.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from stages.cli.grade import Answer, read_answers
from stages.verifier.grade import Grade, grade_all
from tests.paths import SHARED_DATA
from tests.verifier.plain import grade_alone, with_gold

LOGS = SHARED_DATA / "r1_logs"
NAMES = ("static-7b_amc23", "static-7b_math500", "tldr-7b_amc23", "tldr-7b_math500")
ADJUDICATED = Path(__file__).parent / "golden" / "adjudicated.csv"

pytestmark = pytest.mark.skipif(
    not LOGS.is_dir(), reason="needs ../shared/data/r1_logs, which is not part of the project"
)
Graded = dict[str, list[tuple[Answer, Grade]]]


def grade(answers: list[Answer], processes: int) -> list[Grade]:
    return grade_all([(answer.text, answer.finish_reason, answer.gold) for answer in answers], "math", processes)


@pytest.fixture(scope="module")
def graded() -> Graded:
    """Every response of every file with our verdict, from a single process."""
    logs = {name: read_answers(LOGS / f"{name}.jsonl.gz") for name in NAMES}
    grades = iter(grade([answer for answers in logs.values() for answer in answers], processes=1))
    return {name: [(answer, next(grades)) for answer in answers] for name, answers in logs.items()}


def test_we_agree_with_the_recorded_verdicts(graded: Graded) -> None:
    """98 % of all and 95 % of each file, with a verdict on every response."""
    agreed = {name: [grade.correct == answer.recorded for answer, grade in rows] for name, rows in graded.items()}
    assert [len(agreed[name]) for name in NAMES] == [320, 500, 320, 500]
    assert not any(grade.error for rows in graded.values() for _, grade in rows)
    assert all(sum(same) >= 0.95 * len(same) for same in agreed.values())
    every = [same for flags in agreed.values() for same in flags]
    assert sum(every) >= 0.98 * len(every)


def test_every_disagreement_is_adjudicated_and_ours_is_right(graded: Graded) -> None:
    with ADJUDICATED.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [
        (row["file"], row["question_id"], int(row["sample_index"]), row["gold"], row["ours"] == "1") for row in rows
    ]
    differing = [
        (name, answer.id, answer.sample_index, answer.gold, grade.correct)
        for name, pairs in graded.items()
        for answer, grade in pairs
        if grade.correct != answer.recorded
    ]
    assert sorted(differing) == sorted(expected)
    assert all(row["ours"] != row["recorded"] and row["reason"] for row in rows)
    right = [row["judged"] == row["ours"] for row in rows]
    assert sum(right) >= 0.8 * len(right)


def test_verdicts_depend_neither_on_processes_nor_on_what_came_before(graded: Graded) -> None:
    """sympy and math-verify keep what they computed; a shuffled order in four new processes meets other caches."""
    pairs = [pair for rows in graded.values() for pair in rows]
    random.Random(5).shuffle(pairs)
    again = grade([answer for answer, _ in pairs], processes=4)
    assert again == [grade for _, grade in pairs]


def test_verdicts_on_neighbours_that_repeat_are_those_on_each_alone(graded: Graded) -> None:
    """As the answers to a problem stand in samples.parquet, where what was found for one is kept for the next."""
    pairs = [pair for rows in graded.values() for pair in rows]
    again = grade([answer for answer, _ in pairs for _ in range(3)], processes=2)
    alone = with_gold([grade_alone((answer.text, answer.finish_reason, answer.gold)) for answer, _ in pairs])
    assert [with_gold(again[start::3]) == alone for start in range(3)] == [True] * 3
