"""Which of a problem's answers are trained on: the shortest correct one (System-1), or kept reasoning (System-2).

Lengths are token counts from the engine. Ties go to the smaller sample index, so that the choice is a function of the
answers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GradedResponse:
    """`num_thought_tokens` counts the tokens before `</think>`; `has_reasoning` says that a thought was closed."""

    problem_id: str
    sample_index: int
    num_tokens: int
    num_thought_tokens: int
    correct: bool
    has_reasoning: bool
    finish_reason: str


@dataclass(frozen=True)
class Label:
    """A chosen response; `rank` is its place by length among the problem's usable answers, 0 the shortest."""

    response: GradedResponse
    pass_rate: float
    rank: int


def usable(response: GradedResponse, *, min_tokens: int, min_thought_tokens: int) -> bool:
    """Correct, complete, and with reasoning that is not merely decorative."""
    return (
        response.correct
        and response.finish_reason == "stop"
        and response.has_reasoning
        and response.num_tokens >= min_tokens
        and response.num_thought_tokens >= min_thought_tokens
    )


def pass_rate(responses: Sequence[GradedResponse]) -> float:
    """Share of correct answers of one problem; ValueError if there are none or they answer several problems."""
    if len({response.problem_id for response in responses}) != 1:
        raise ValueError(f"expected the responses of one problem, got {len(responses)} responses of several or none")
    return sum(response.correct for response in responses) / len(responses)


def choose_system1(responses: Sequence[GradedResponse], *, min_tokens: int, min_thought_tokens: int) -> list[Label]:
    """The shortest usable answer of one problem, or nothing."""
    return _ranked(responses, min_tokens, min_thought_tokens)[:1]


def choose_system2(
    responses: Sequence[GradedResponse], choice: str, *, min_tokens: int, min_thought_tokens: int
) -> list[Label]:
    """The `shortest`, `longest`, (lower) `median` or `all` usable answers of one problem."""
    if choice not in ("shortest", "longest", "median", "all"):
        raise ValueError(f"choice must be shortest, longest, median or all, not {choice!r}")
    ranked = _ranked(responses, min_tokens, min_thought_tokens)
    if choice == "all" or not ranked:
        return ranked
    place = {"shortest": 0, "longest": len(ranked) - 1, "median": (len(ranked) - 1) // 2}[choice]
    return [ranked[place]]


def _ranked(responses: Sequence[GradedResponse], min_tokens: int, min_thought_tokens: int) -> list[Label]:
    rate = pass_rate(responses)
    kept = [r for r in responses if usable(r, min_tokens=min_tokens, min_thought_tokens=min_thought_tokens)]
    kept.sort(key=lambda r: (r.num_tokens, r.sample_index))
    return [Label(response, rate, rank) for rank, response in enumerate(kept)]


def length_histogram(lengths: Iterable[int], num_bins: int, upper: int) -> list[tuple[int, int, int]]:
    """(lower, upper, count) of `num_bins` equal bins of whole tokens that cover 0..`upper`.

    A length on a border belongs to the higher bin. ValueError for a length outside 0..`upper`.
    """
    if num_bins < 1 or upper < 1:
        raise ValueError(f"num_bins and upper must be at least 1, not {num_bins} and {upper}")
    width = -(-upper // num_bins)
    counts = [0] * num_bins
    for length in lengths:
        if not 0 <= length <= upper:
            raise ValueError(f"length {length} is outside 0 to {upper}")
        counts[min(length // width, num_bins - 1)] += 1
    return [(i * width, (i + 1) * width, count) for i, count in enumerate(counts)]
