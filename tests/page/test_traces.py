"""Which flips are shown, and how much of a trace."""

from __future__ import annotations

import pytest

from stages.evidence.figures import Flip
from stages.page.traces import HEAD, MAX_SHOWN, TAIL, chosen, flip_rows, shortened


def lost(number: int, task: str = "t", group: str = "") -> Flip:
    return Flip(task, group, f"l{number}", 2, 1, 2, 0)


def gained(number: int, task: str = "t", group: str = "") -> Flip:
    return Flip(task, group, f"g{number}", 1, 2, 2, 0)


@pytest.mark.parametrize(
    ("num_lost", "num_gained", "shown_lost", "shown_gained"),
    [(50, 50, 10, 10), (3, 50, 3, 17), (50, 3, 17, 3), (2, 3, 2, 3), (0, 30, 0, 20), (0, 0, 0, 0), (30, 0, 20, 0)],
)
def test_losses_and_gains_share_the_room(num_lost: int, num_gained: int, shown_lost: int, shown_gained: int) -> None:
    found = chosen([*map(lost, range(num_lost)), *map(gained, range(num_gained))])
    assert [flip.kind for flip in found] == ["lost"] * shown_lost + ["gained"] * shown_gained
    assert [flip.question_id for flip in found[:shown_lost]] == [f"l{i}" for i in range(shown_lost)]
    assert len(found) <= MAX_SHOWN


def test_rows_are_tasks_or_the_groups_of_one() -> None:
    of_tasks = [lost(0, "a", "x"), lost(1, "a"), gained(0, "b", "x")]
    assert flip_rows(of_tasks, ["a", "b", "c"]) == [
        {"task": "a", "lost": "2", "gained": "0"},
        {"task": "b", "lost": "0", "gained": "1"},
        {"task": "c", "lost": "0", "gained": "0"},
    ]
    of_groups = [lost(0, "t", "length-1"), gained(0, "t", "length-2"), gained(1, "t", "length-2")]
    rows = flip_rows(of_groups, ["length-1", "length-2"])
    assert [(row["lost"], row["gained"]) for row in rows] == [("1", "0"), ("0", "2")]


def test_the_middle_of_a_long_trace_is_left_out() -> None:
    whole = "a" * HEAD + "b" * TAIL
    assert shortened(whole) == whole
    assert shortened("a" * HEAD + "x" * 1234 + "b" * TAIL) == (
        "a" * HEAD + "\n[… 1,234 characters left out …]\n" + "b" * TAIL
    )
