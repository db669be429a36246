"""Conditions of two runs: what may be compared, and the sentence for what may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stages.evidence.comparability import Conditions, mismatches

DECODE = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 640, "repetition": None}
KNOWN = Conditions(
    length_unit="tokens",
    tokenizer="aaaa",
    decode=DECODE,
    verifier="exact",
    model="m1",
    engine="hf",
    seed=1,
    versions={"tiny": "1.0, 0-shot"},
    prompts={"tiny": "pppp"},
)


def fields(base: Conditions, candidate: Conditions, tasks: tuple[str, ...] = ("tiny",)) -> list[tuple[str, str | None]]:
    return [(found.field, found.task) for found in mismatches(base, candidate, tasks)]


def test_equal_conditions_differ_in_nothing_whatever_model_engine_and_seed() -> None:
    assert mismatches(KNOWN, KNOWN, ["tiny"]) == []
    assert mismatches(KNOWN, replace(KNOWN, model="m2", engine="vllm", seed=7), ["tiny"]) == []


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"prompts": {"tiny": "qqqq"}}, "prompts", "The prompts of task tiny is pppp in the baseline and qqqq"),
        ({"versions": {"tiny": "2.0, 0-shot"}}, "versions", "The version of task tiny is 1.0, 0-shot in the baseline"),
        ({"tokenizer": "bbbb"}, "tokenizer", "The tokenizer is aaaa in the baseline and bbbb in the candidate"),
        ({"length_unit": "words"}, "length_unit", "The unit of length is tokens in the baseline and words"),
        ({"verifier": "math"}, "verifier", "The verifier of task tiny is exact in the baseline and math"),
        (
            {"decode": DECODE | {"max_tokens": 320}},
            "decode.max_tokens",
            "The token limit (decode.max_tokens) of task tiny is 640 in the baseline and 320 in the candidate",
        ),
        ({"decode": DECODE | {"temperature": 0.6}}, "decode.temperature", "The decode.temperature of task tiny is 1.0"),
        (
            {"decode": DECODE | {"repetition": {"max_pattern_size": 8, "min_count": 4}}},
            "decode.repetition",
            "is none in the baseline and max_pattern_size 8, min_count 4 in the candidate",
        ),
    ],
)
def test_a_difference_is_found_and_said(changes: dict[str, Any], field: str, words: str) -> None:
    (found,) = mismatches(KNOWN, replace(KNOWN, **changes), ["tiny"])
    assert found.field == field
    assert words in found.sentence.replace(" are ", " is ")
    assert found.sentence.endswith(".")
    assert "\n" not in found.sentence
    assert [each.field for each in mismatches(replace(KNOWN, **changes), KNOWN, ["tiny"])] == [field]


@pytest.mark.parametrize("name", ["tokenizer", "decode", "verifier"])
def test_what_one_run_does_not_know_is_no_difference(name: str) -> None:
    unknown = replace(KNOWN, **{name: None})
    assert mismatches(unknown, KNOWN, ["tiny"]) == mismatches(KNOWN, unknown, ["tiny"]) == []
    assert mismatches(Conditions(length_unit="tokens"), KNOWN, ["tiny"]) == []
    partly = replace(KNOWN, decode={"temperature": 1.0}, versions={}, prompts={"other": "x"})
    assert mismatches(partly, KNOWN, ["tiny"]) == []


def test_the_gravest_difference_comes_first_and_only_common_tasks_count() -> None:
    other = Conditions(
        length_unit="words",
        tokenizer="bbbb",
        decode={"top_p": 0.9, "max_tokens": 9},
        verifier="math",
        versions={"tiny": "9"},
        prompts={"tiny": "x", "gone": "y"},
    )
    assert [name for name, _ in fields(KNOWN, other)] == [
        *("prompts", "versions", "decode.max_tokens", "tokenizer", "decode.top_p", "length_unit", "verifier"),
    ]
    assert [name for name, _ in fields(KNOWN, other, ())] == ["tokenizer", "length_unit"]


def test_a_setting_of_a_single_task_replaces_that_of_the_run() -> None:
    mixed = replace(KNOWN, task_decode={"b": {"max_tokens": 32}}, task_verifier={"b": "exact_match, filter none"})
    assert fields(KNOWN, mixed, ("a", "b")) == [("decode.max_tokens", "b"), ("verifier", "b")]
    assert fields(mixed, mixed, ("a", "b")) == []


def test_a_difference_of_all_tasks_is_one_sentence() -> None:
    other = replace(KNOWN, decode=DECODE | {"max_tokens": 320}, verifier="math")
    assert fields(KNOWN, other, ("a", "b")) == [("decode.max_tokens", None), ("verifier", None)]
    (first, _) = mismatches(KNOWN, other, ["a", "b"])
    assert first.sentence.startswith(
        "The token limit (decode.max_tokens) is 640 in the baseline and 320 in the candidate:"
    )
