"""The overlap check: planted overlaps are found, distinct problems are not accused."""

from __future__ import annotations

import json
from random import Random

import pytest

from stages._errors import StageFailed
from stages.data.overlap import Likeness, check_overlap, find_overlaps, normalised_words
from stages.data.problems import Problem
from stages.tiny.chains import prompt_text, random_chain, solve
from tests.paths import SHARED_DATA

ALIKE = Likeness(8, 0.5, 0.8)
BENCHMARKS = SHARED_DATA / "benchmarks"

BAKERY = (
    "A bakery sells 24 loaves every morning and half as many in the afternoon. If a loaf costs $3, "
    "how many dollars does the bakery take in per day?"
)
TRAIN = (
    "A train leaves Lyon at 9 in the morning at 80 km/h and a second one follows an hour later at 120 km/h. "
    "How many hours after its own departure does the second train catch up?"
)
INTEGERS = r"Find the number of integers $n$ with $1 \le n \le 1,000$ for which $n^2 + n + 1$ is divisible by 7."


def problem(id: str, prompt: str, gold: str = "7") -> Problem:
    return Problem(id, prompt, gold, None, None)


def found(left: list[Problem], right: list[Problem]) -> list[str]:
    return [str(overlap) for overlap in find_overlaps({"system1": left, "test": right}, ALIKE)]


def test_normalised_words_drop_layout_and_keep_operators() -> None:
    assert normalised_words(r"What is $\left( 1,000 \right)\,$, \textbf{please}?")[:5] == (
        "what",
        "is",
        "(",
        "1000",
        ")",
    )
    assert normalised_words(r"\dfrac{1}{2}") == normalised_words(r"\frac12".replace("12", " 1 2"))
    assert normalised_words("2 + 3") != normalised_words("2 - 3") != normalised_words("2 * 3")
    assert normalised_words("x=1.5") == ("x", "=", "1.5")
    assert normalised_words("2*(3+4)") != normalised_words("(2*3)+4")


def test_an_equal_text_is_found_whatever_its_answer_case_and_punctuation() -> None:
    copy = BAKERY.upper().replace("?", " ?").replace(",", "")
    assert found([problem("a", BAKERY, "108")], [problem("b", copy, "a typing error")]) == ["system1:a ~ test:b"]
    assert found([problem("a", "Find 2 + 2.")], [problem("b", "find 2+2")]) == ["system1:a ~ test:b"]


def test_an_edited_copy_is_found_if_the_answer_is_the_same() -> None:
    edited = "Here is a question. " + BAKERY.replace("every morning", "each morning") + " Answer with a number."
    assert found([problem("a", BAKERY, "108")], [problem("b", edited, "108.0")]) == ["system1:a ~ test:b"]
    assert found([problem("a", BAKERY, "108")], [problem("b", edited, "109")]) == []
    changed = BAKERY.replace("24", "30").replace("half", "twice").replace("$3", "$5").replace("afternoon", "evening")
    assert found([problem("a", BAKERY, "108")], [problem("b", changed, "108")]) == []


def test_numbers_are_compared_by_value() -> None:
    edited = TRAIN.replace("follows", "comes")
    for gold in ("080", "80.0", "$80$", "+80"):
        assert found([problem("a", TRAIN, "80")], [problem("b", edited, gold)]) == ["system1:a ~ test:b"]
    for gold in ("-80", "80.5", "8"):
        assert found([problem("a", TRAIN, "80")], [problem("b", edited, gold)]) == []


def test_a_problem_that_asks_for_another_form_of_its_answer_is_found() -> None:
    restated = TRAIN.replace("does the second train catch up?", "does the second train catch up? Give it in minutes.")
    assert found([problem("a", TRAIN, "2")], [problem("b", restated, "120")]) == ["system1:a ~ test:b"]
    assert found([problem("a", TRAIN, "2")], [problem("b", restated.replace("80", "60"), "60")]) == []


def test_a_phrase_that_every_problem_has_pairs_nothing() -> None:
    phrase = "can be written as m over n where m and n are relatively prime positive integers, find m plus n, for the number "
    sets = [
        [problem(f"{side}{i}", f"{phrase}{side * 200 + i} of case {i} here") for i in range(150)] for side in (0, 1)
    ]
    plain = [[problem(p.id, p.prompt, p.id) for p in side] for side in sets]
    assert found(*plain) == []


def test_a_template_of_a_set_neither_hides_nor_makes_an_overlap() -> None:
    suffix = " Reason step by step, and write the final answer alone, on the last line, within a box, please."
    short = "What is 17 squared minus 282?"
    left = [problem("a", short), problem("b", TRAIN), problem("c", "Compute 3 + 4.")]
    right = [
        problem("x", short + suffix),
        problem("y", "How many days has a week?" + suffix),
        problem("z", INTEGERS + suffix),
    ]
    assert found(left, right) == ["system1:a ~ test:x"]
    assert found([problem(p.id, p.prompt + suffix) for p in left], right) == ["system1:a ~ test:x"]


def test_only_different_sets_are_compared_and_the_order_is_that_of_the_files() -> None:
    sets = {
        "system2": [problem("s", TRAIN), problem("s2", TRAIN)],
        "control": [problem("c", INTEGERS)],
        "test": [problem("t", INTEGERS), problem("u", TRAIN)],
    }
    assert [str(overlap) for overlap in find_overlaps(sets, ALIKE)] == [
        "system2:s ~ test:u",
        "system2:s2 ~ test:u",
        "control:c ~ test:t",
    ]


def test_the_stage_fails_with_ten_names_and_the_number() -> None:
    left = [problem(f"a{i}", f"What is {i} plus {i}?", str(i)) for i in range(12)]
    right = [problem(f"b{i}", f"What is {i} plus {i}?", str(i)) for i in range(12)]
    with pytest.raises(StageFailed) as caught:
        check_overlap({"system1": left, "test": right}, ALIKE)
    message = str(caught.value)
    assert message.startswith("12 pairs of problems are the same in two sets: system1:a0 ~ test:b0, ")
    assert "system1:a9 ~ test:b9 and 2 more" in message and "a10" not in message
    assert "data.overlap_share" in message
    with pytest.raises(StageFailed, match=r"^1 pair of problems is the same"):
        check_overlap({"system1": left[:1], "test": right}, ALIKE)
    check_overlap({"system1": left, "test": [problem("c", TRAIN)]}, ALIKE)


def test_distinct_tiny_chains_are_not_accused() -> None:
    rng = Random(0)
    chains = list(dict.fromkeys(random_chain(1 + i % 8, rng) for i in range(800)))
    problems = [problem(str(i), prompt_text(chain), str(solve(chain))) for i, chain in enumerate(chains)]
    sets = {"system1": problems[::4], "system2": problems[1::4], "control": problems[2::4], "test": problems[3::4]}
    assert find_overlaps(sets, ALIKE) == []
    sets["test"] = [*sets["test"], sets["control"][5], sets["system2"][0]]
    assert len(find_overlaps(sets, ALIKE)) == 2


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs ../shared/data/benchmarks, which is not part of the project")
def test_math500_problems_within_aime_are_found() -> None:
    """MATH-500 shares 8 problems with AIME 1983-2023, as is published; some are typed differently, one (126) asks for
    z = 1 + 274i where AIME asks for 1 + 274."""
    aime = [json.loads(line) for line in (BENCHMARKS / "aime_1983_2023.jsonl").read_text().splitlines()]
    math = [json.loads(line) for line in (BENCHMARKS / "math500.jsonl").read_text().splitlines()]
    overlaps = find_overlaps(
        {
            "control": [problem(str(i), row["query"], row["ref_answer"]) for i, row in enumerate(aime)],
            "test": [problem(str(i), row["problem"], row["answer"]) for i, row in enumerate(math)],
        },
        ALIKE,
    )
    assert [int(overlap.second_id) for overlap in overlaps] == [489, 292, 126, 475, 412, 285, 110, 80]
