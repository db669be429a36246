"""Which responses are chosen: shortest correct for System-1, kept reasoning for System-2, and the guards."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.labels import (
    GradedResponse,
    choose_system1,
    choose_system2,
    length_histogram,
    pass_rate,
    usable,
)

GUARDS: dict[str, int] = {"min_tokens": 5, "min_thought_tokens": 3}


def response(sample_index: int, num_tokens: int, **changes: Any) -> GradedResponse:
    values: dict[str, Any] = {
        "problem_id": "p",
        "sample_index": sample_index,
        "num_tokens": num_tokens,
        "num_thought_tokens": num_tokens - 2,
        "correct": True,
        "has_reasoning": True,
        "finish_reason": "stop",
    }
    return GradedResponse(**{**values, **changes})


FOUR = [response(0, 40), response(1, 20), response(2, 10, correct=False), response(3, 30)]


def test_system1_is_the_shortest_correct_answer() -> None:
    (label,) = choose_system1(FOUR, **GUARDS)
    assert (label.response.sample_index, label.pass_rate, label.rank) == (1, 0.75, 0)


@pytest.mark.parametrize(
    ("choice", "lengths", "ranks"),
    [("shortest", [20], [0]), ("median", [30], [1]), ("longest", [40], [2]), ("all", [20, 30, 40], [0, 1, 2])],
)
def test_system2_choices(choice: str, lengths: list[int], ranks: list[int]) -> None:
    labels = choose_system2(FOUR, choice, **GUARDS)
    assert [label.response.num_tokens for label in labels] == lengths
    assert [label.rank for label in labels] == ranks
    assert {label.pass_rate for label in labels} == {0.75}


def test_median_of_an_even_number_is_the_lower_one() -> None:
    labels = choose_system2([response(n, 10 * (n + 1)) for n in range(4)], "median", **GUARDS)
    assert [label.response.num_tokens for label in labels] == [20]


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": False},
        {"finish_reason": "length"},
        {"has_reasoning": False},
        {"num_tokens": 4},
        {"num_thought_tokens": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_guard_alone_refuses(changes: dict[str, Any]) -> None:
    good, bad = response(0, 50), response(1, **{"num_tokens": 9, **changes})
    assert usable(good, **GUARDS)
    assert not usable(bad, **GUARDS)
    assert [label.response for label in choose_system1([bad, good], **GUARDS)] == [good]


def test_values_at_the_guards_are_kept() -> None:
    assert usable(response(0, 5, num_thought_tokens=3), **GUARDS)


def test_pass_rate_counts_correct_answers_that_the_guards_refuse() -> None:
    (label,) = choose_system1([response(0, 4), response(1, 20), response(2, 30, correct=False)], **GUARDS)
    assert label.pass_rate == pytest.approx(2 / 3)


def test_nothing_usable_gives_nothing() -> None:
    wrong = [response(n, 20, correct=False) for n in range(3)]
    assert choose_system1(wrong, **GUARDS) == choose_system2(wrong, "all", **GUARDS) == []
    assert pass_rate(wrong) == 0.0


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(5, 9), min_size=1, max_size=8), seed=st.integers(0, 100))
def test_choice_does_not_depend_on_the_order_of_arrival(lengths: list[int], seed: int) -> None:
    """Many ties here: they go to the smaller sample index."""
    responses = [response(index, length) for index, length in enumerate(lengths)]
    shuffled = Random(seed).sample(responses, len(responses))
    ranked = choose_system2(shuffled, "all", **GUARDS)
    assert ranked == choose_system2(responses, "all", **GUARDS)
    keys = [(label.response.num_tokens, label.response.sample_index) for label in ranked]
    assert keys == sorted(keys)
    assert choose_system1(shuffled, **GUARDS) == ranked[:1]


@pytest.mark.parametrize("responses", [FOUR, [response(0, 20, correct=False)]], ids=["some usable", "none usable"])
def test_unknown_choice_is_refused_whatever_the_answers(responses: list[GradedResponse]) -> None:
    with pytest.raises(ValueError, match="shortest, longest, median or all"):
        choose_system2(responses, "middle", **GUARDS)


def test_responses_of_several_problems_or_none_are_refused() -> None:
    for responses in ([], [response(0, 20), response(0, 20, problem_id="q")]):
        with pytest.raises(ValueError, match="one problem"):
            choose_system1(responses, **GUARDS)


def test_histogram_counts_every_length_once() -> None:
    assert length_histogram([0, 4, 5, 9, 10, 20], 4, 20) == [(0, 5, 2), (5, 10, 2), (10, 15, 1), (15, 20, 1)]


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 300), max_size=30), num_bins=st.integers(1, 40), upper=st.integers(300, 999))
def test_histogram_is_a_partition(lengths: list[int], num_bins: int, upper: int) -> None:
    bins = length_histogram(lengths, num_bins, upper)
    assert len(bins) == num_bins
    assert sum(count for _, _, count in bins) == len(lengths)
    assert bins[0][0] == 0
    assert bins[-1][1] >= upper
    for low, high, count in bins:
        assert count == sum(low <= length < high for length in lengths if length < bins[-1][1]) + (
            lengths.count(high) if high == bins[-1][1] else 0
        )


def test_histogram_refuses_what_it_cannot_place() -> None:
    for lengths, num_bins, upper in (([5], 0, 10), ([5], 4, 0), ([11], 4, 10), ([-1], 4, 10)):
        with pytest.raises(ValueError, match=r"must be|outside"):
            length_histogram(lengths, num_bins, upper)
