"""Schedules that do not look at the control set: static, linear, cosine, random."""

from __future__ import annotations

import math

import pytest

from stages.core.ratio import scheduled_share


def test_schedules_go_from_init_to_final() -> None:
    def path(schedule: str) -> list[float]:
        return [scheduled_share(schedule, 0.2, 0.8, window, 5, 1, 0.1) for window in range(5)]

    assert path("static") == [0.2] * 5
    assert path("linear") == pytest.approx([0.2, 0.35, 0.5, 0.65, 0.8])
    assert path("cosine") == pytest.approx(
        [0.2, 0.8 - 0.3 * (1 + math.sqrt(0.5)), 0.5, 0.5 + 0.3 * math.sqrt(0.5), 0.8]
    )
    assert scheduled_share("linear", 0.2, 0.8, 0, 1, 1, 0.1) == 0.2


def test_random_schedule_depends_on_seed_and_window_alone() -> None:
    def path(seed: int, windows: range) -> list[float]:
        return [scheduled_share("random", 0.5, 0.5, window, 200, seed, 0.1) for window in windows]

    drawn = path(1, range(200))
    assert path(1, range(199, -1, -1)) == drawn[::-1]
    assert path(2, range(200)) != drawn
    assert min(drawn) >= 0.1
    assert max(drawn) <= 0.9
    assert len(set(drawn)) == 200


@pytest.mark.parametrize(("schedule", "window"), [("sawtooth", 0), ("linear", 5), ("linear", -1)])
def test_unknown_schedule_or_window(schedule: str, window: int) -> None:
    with pytest.raises(ValueError, match="must"):
        scheduled_share(schedule, 0.2, 0.8, window, 5, 1, 0.1)
