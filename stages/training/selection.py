"""Which checkpoint is kept: the fewest control tokens among those that lost no accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.evidence.paired import non_inferiority
from stages.training.control import Score


@dataclass(frozen=True)
class Selection:
    """`fallback` says that no checkpoint was shown to be non-inferior and the most accurate one was taken instead."""

    step: int
    fallback: bool
    num_eligible: int


def select_checkpoint(base: Score, scores: Sequence[tuple[int, Score]], margin: float, alpha: float) -> Selection:
    """`scores` are (step, score on the whole control set) of the checkpoints in question; ties go to the first."""
    eligible = [(step, score) for step, score in scores if is_eligible(base, score, margin, alpha)]
    if eligible:
        return Selection(min(eligible, key=lambda pair: pair[1].mean_tokens)[0], False, len(eligible))
    return Selection(max(scores, key=lambda pair: pair[1].accuracy)[0], True, 0)


def is_eligible(base: Score, score: Score, margin: float, alpha: float) -> bool:
    """Whether a loss of `margin` is excluded, paired by question."""
    differences = [new - old for old, new in zip(base.question_accuracy, score.question_accuracy, strict=True)]
    return non_inferiority(differences, margin, alpha).verdict == "PASS"
