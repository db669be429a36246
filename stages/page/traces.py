"""Flips for the page: which are shown, which row of the table they belong to, and how much of a long trace. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stages.evidence.figures import Flip

MAX_SHOWN = 20
HEAD, TAIL = 2000, 1500  # characters of a trace that are shown; the middle of a longer one is left out


@dataclass(frozen=True)
class Trace:
    """One answer as it was written: text, graded answer (None if none was found), verdict and tokens."""

    text: str
    answer: str | None
    correct: bool
    num_tokens: int


@dataclass(frozen=True)
class ShownFlip:
    """A flip with the two answers that show it; `problem` and `gold` are None where the question is not at hand."""

    flip: Flip
    problem: str | None
    gold: str | None
    before: Trace
    after: Trace


@dataclass(frozen=True)
class FlipSection:
    """`rows` of `flip_rows`; `missing` is a sentence that says why no traces are shown."""

    rows: Sequence[Mapping[str, str]]
    num_lost: int
    num_gained: int
    num_questions: int
    shown: Sequence[ShownFlip]
    missing: str | None


def chosen(flips: Sequence[Flip]) -> list[Flip]:
    """At most `MAX_SHOWN`, the largest changes first; half of them losses and half gains where there are enough."""
    lost, gained = ([flip for flip in flips if flip.kind == kind] for kind in ("lost", "gained"))
    num_gained = min(len(gained), max(MAX_SHOWN // 2, MAX_SHOWN - len(lost)))
    return [*lost[: MAX_SHOWN - num_gained], *gained[:num_gained]]


def flip_rows(flips: Iterable[Flip], names: Iterable[str]) -> list[dict[str, str]]:
    """Lost and gained questions of every row of the report (`names`: its tasks, or the groups of its one task)."""
    rows = list(names)
    counts = Counter((flip.task if flip.task in rows else flip.group, flip.kind) for flip in flips)
    return [{"task": name, **{kind: f"{counts[name, kind]:,}" for kind in ("lost", "gained")}} for name in rows]


def shortened(text: str) -> str:
    """Beginning and end of a long text with the number of characters between them."""
    left_out = len(text) - HEAD - TAIL
    return text if left_out <= 0 else f"{text[:HEAD]}\n[… {left_out:,} characters left out …]\n{text[-TAIL:]}"
