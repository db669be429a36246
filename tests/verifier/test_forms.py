"""Forms of answers: golden right and wrong ones, perturbed golds of MATH-500, and texts that break off or hold loops."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import pytest

from stages.verifier.final_answer import final_answer
from stages.verifier.grade import grade_all
from tests.paths import SHARED_DATA
from tests.verifier.plain import grade_alone, with_gold

FORMS = Path(__file__).parent / "golden" / "answer_forms.csv"
MATH500 = SHARED_DATA / "benchmarks" / "math500.jsonl"
DIGIT = re.compile(r"\d")


def test_every_golden_form_is_graded_as_a_reader_would() -> None:
    """Right: other spellings, orders, units, words. Wrong: near misses of value, sign, bracket, base, unit and element."""
    with FORMS.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    grades = grade_all([(row["response"], "stop", row["gold"]) for row in rows], "math", processes=2)
    assert not [row for row, grade in zip(rows, grades, strict=True) if grade.error]
    assert not [row for row, grade in zip(rows, grades, strict=True) if grade.correct != (row["correct"] == "1")]
    assert sum(row["correct"] == "0" for row in rows) >= 100 and sum(row["correct"] == "1" for row in rows) >= 100


def test_verdicts_on_repeated_pairs_are_those_on_each_alone() -> None:
    """Golden forms, and each gold with the answers of others: with errors, repeats and changing neighbours."""
    with FORMS.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rng = random.Random(11)
    golds = [*(row["gold"] for row in rows), "$ $"]
    pairs = [(row["response"], row["gold"]) for row in rows]
    pairs += [(rng.choice(rows)["response"], rng.choice(golds)) for _ in range(400)]
    pairs += [(rng.choice(rows[:20])["response"], "$ $") for _ in range(5)]
    alone = [grade_alone((response, "stop", gold)) for response, gold in pairs]
    places = [rng.randrange(len(pairs)) for _ in range(600)]
    places = [place for place in places for _ in range(rng.choice((1, 1, 2, 5)))]
    grades = grade_all([(pairs[place][0], "stop", pairs[place][1]) for place in places], "math", processes=2)
    assert with_gold(grades) == with_gold([alone[place] for place in places])
    assert {grade.error for grade in grades} == {True, False} == {grade.correct for grade in grades}


def near_misses(gold: str) -> list[str]:
    """Another digit, the other sign, other brackets, the last element missing: none of them equals the gold."""
    digits = [match.start() for match in DIGIT.finditer(gold)]
    missed = [f"{gold[:at]}{(int(gold[at]) + 1) % 10}{gold[at + 1 :]}" for at in digits[:2]]
    if re.fullmatch(r"-?[\d.]+", gold):
        missed.append(f"{gold}0" if "." not in gold else f"1{gold}")
    if gold[0] in "([" and gold[-1] in ")]":
        missed += [{"(": "[", "[": "("}[gold[0]] + gold[1:], gold[:-1] + {")": "]", "]": ")"}[gold[-1]]]
    if gold[0] in "([" and gold.count(",") == 1:
        missed.append(gold.partition(",")[0][1:])
    missed.append(gold[1:] if gold.startswith("-") else f"-{gold}")
    return [answer for answer in missed if answer.strip("-") not in ("0", "00")]


@pytest.mark.skipif(not MATH500.is_file(), reason="needs ../shared/data/benchmarks, which is not part of the project")
def test_near_misses_of_real_golds_are_wrong() -> None:
    golds = sorted({json.loads(line)["answer"] for line in MATH500.read_text(encoding="utf-8").splitlines()})
    cases = [(gold, answer) for gold in golds if DIGIT.search(gold) for answer in near_misses(gold)]
    items = [(rf"</think> \boxed{{{answer}}}", "stop", gold) for gold, answer in cases]
    grades = grade_all(items, "math", processes=2)
    assert len(cases) > 900
    assert not [case for case, grade in zip(cases, grades, strict=True) if grade.correct or grade.error]


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (r"It is \boxed{8}. It took 12 steps.", "8"),
        (r"First \boxed{3}. Then it is \boxed{5} or \boxed{7}.", "5, 7"),
        (r"\boxed{7} was wrong. It is \boxed{8}.", "8"),
        (r"\boxed{\boxed{8}}", "8"),
        (r"So $\boxed{8$.", "8"),
        (r"So \boxed{}. It is \fbox{8}", "8"),
        ("The answer is 8, because 3+5=8.", "8"),
        ("The answer: 3+5=8.", "8"),
        ("**Final Answer**\n\n8", "8"),
        ("**Answer:** 8\n\nLet me know if you need more.", "8"),
        ("The answer is Evelyn.", "Evelyn"),
        ("So there are 8 integers \\(t\\) with it.", "8"),
        ("So it is 9, not 8.", "9"),
        (r"They are \(x = 1\) and \(x = -2\).", "x = 1, x = -2"),
        (r"So \(a = 2\), \(b = 3\) and \(a + b = 5\).", "a + b = 5"),
        (r"So 8 it seems.\n\nThe sum is 9.\n", "9"),
        ("So the sum is 8.\n\nCompute 3 *", None),
        ("So the sum is 8.\n\nThen \\(x = 8", None),
        ("So the sum is 8.\n2.", None),
        ("It is 8.\n\nWait, that is not 8.", None),
        ("- The exponent is 8.", None),
        ("no number here", None),
    ],
)
def test_the_final_answer_is_a_box_or_a_finished_conclusion(written: str, answer: str | None) -> None:
    assert final_answer(written) == answer


def test_the_box_that_ends_a_thought_counts_only_where_the_answer_breaks_off() -> None:
    thought = "so it is 8.\n\n**Final Answer**\n\\[ \\boxed{8} \\]\n"
    assert final_answer("To find it, we start with \\(x +", thought) == "8"
    assert final_answer("It is \\boxed{7}.", thought) == "7"
    assert final_answer("The answer is 7.", thought) == "7"
    assert final_answer("", thought) is None
    assert final_answer("I cannot tell.", thought) is None
    assert final_answer("To find it, we start with \\(x +", f"{thought}Wait, is that so?") is None
    response = f"{thought}</think> To find it, we start with \\(x +"
    grades = grade_all([(response, "stop", "8"), (response, "length", "8")], "math", processes=1)
    assert [grade.correct for grade in grades] == [True, False]


def test_loops_get_a_verdict() -> None:
    """What collapsed models repeat to the limit of tokens; each takes seconds where a pattern goes over it twice."""
    loops = [r"\boxed{" * 5000, "$" * 30_000, "." * 30_000, "answer " * 5000, r"\(x = 5\) and " * 2000, r"\ " * 15_000]
    grades = grade_all([(f"</think> {loop}", "stop", "8") for loop in loops], "math", processes=1)
    assert [(grade.correct, grade.error) for grade in grades] == [(False, False)] * len(loops)
