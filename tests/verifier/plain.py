"""The verdict on one response from nothing: no worker, and nothing kept from the responses before it."""

from __future__ import annotations

from stages.verifier import equality
from stages.verifier.grade import NO_VERDICT, Grade, Item, grade_math


def grade_alone(item: Item) -> Grade:
    """Without a time limit: not for a response that never ends."""
    for kept in (equality.same_answer, equality.shown, equality.gold_text, equality.parsed):
        kept.cache_clear()
    try:
        return grade_math(*item)
    except Exception:  # noqa: BLE001 - what math-verify and sympy raise is no verdict
        return NO_VERDICT


def with_gold(grades: list[Grade]) -> list[tuple[Grade, str | None]]:
    """`gold` is left out when two grades are compared."""
    return [(grade, grade.gold) for grade in grades]
