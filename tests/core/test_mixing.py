"""The mixture: the realised counts are the requested ones, and a position means the same wherever one starts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.mixing import Window, assignments, item_at, locate

few = settings(max_examples=100, deadline=None)


@st.composite
def mixtures(draw: st.DrawFn) -> list[Window]:
    lengths = draw(st.lists(st.integers(1, 60), min_size=0, max_size=8))
    starts = [0, *(sum(lengths[: n + 1]) for n in range(len(lengths)))]
    # Simple fractions meet the rounding ties, arbitrary floats everything else.
    share = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0]))
    return [Window(start, draw(share)) for start in starts]


def test_half_and_half_alternates() -> None:
    assert list(assignments([Window(0, 0.5)], 0, 4)) == [
        ("system1", 0),
        ("system2", 0),
        ("system1", 1),
        ("system2", 1),
    ]


def test_share_changes_at_the_window() -> None:
    sources = [source for source, _ in assignments([Window(0, 1.0), Window(3, 0.0)], 0, 6)]
    assert sources == ["system1"] * 3 + ["system2"] * 3


@few
@given(windows=mixtures(), num_last=st.integers(1, 60))
def test_every_window_is_within_one_of_its_request(windows: list[Window], num_last: int) -> None:
    ends = [*(window.start for window in windows[1:]), windows[-1].start + num_last]
    for window, end in zip(windows, ends, strict=True):
        num_short = sum(source == "system1" for source, _ in assignments(windows, window.start, end))
        assert abs(num_short - (end - window.start) * window.short_share) <= 1.0 + 1e-6


@few
@given(windows=mixtures(), num_last=st.integers(1, 60))
def test_the_whole_run_is_within_a_half_of_its_request(windows: list[Window], num_last: int) -> None:
    """The remainder of each window is carried over: errors do not add up."""
    ends = [*(window.start for window in windows[1:]), windows[-1].start + num_last]
    wanted = sum((end - window.start) * window.short_share for window, end in zip(windows, ends, strict=True))
    num_short = sum(source == "system1" for source, _ in assignments(windows, 0, ends[-1]))
    assert abs(num_short - wanted) <= 0.5 + 1e-6


@few
@given(windows=mixtures(), num_last=st.integers(1, 60))
def test_streams_have_no_gap_and_no_repeat(windows: list[Window], num_last: int) -> None:
    pairs = list(assignments(windows, 0, windows[-1].start + num_last))
    for source in ("system1", "system2"):
        indices = [index for name, index in pairs if name == source]
        assert indices == list(range(len(indices)))


@few
@given(windows=mixtures(), start=st.integers(0, 500), length=st.integers(0, 100))
def test_a_position_means_the_same_wherever_one_starts(windows: list[Window], start: int, length: int) -> None:
    """So a resumed run continues where it was."""
    part = list(assignments(windows, start, start + length))
    assert part == list(assignments(windows, 0, start + length))[start:]
    if length:
        assert part[0] == locate(windows, start)


def test_two_processes_together_see_the_request() -> None:
    windows = [Window(0, 0.3), Window(64, 0.85)]
    of_rank = [[locate(windows, position) for position in range(rank, 128, 2)] for rank in (0, 1)]
    merged = [pair for pairs in zip(*of_rank, strict=True) for pair in pairs]
    assert merged == list(assignments(windows, 0, 128))
    assert [sum(s == "system1" for s, _ in merged[a:b]) for a, b in ((0, 64), (64, 128))] == [19, 55]


def test_later_windows_do_not_move_earlier_positions() -> None:
    known = [Window(0, 0.37), Window(32, 0.61)]
    assert list(assignments(known, 0, 64)) == list(assignments([*known, Window(64, 0.9)], 0, 64))


def test_far_positions_stay_exact() -> None:
    start = 1_000_000
    pairs = list(assignments([Window(0, 0.3), Window(start, 0.7)], start - 1000, start + 1000))
    for source in ("system1", "system2"):
        indices = [index for name, index in pairs if name == source]
        assert indices == list(range(indices[0], indices[0] + len(indices)))
    assert abs(sum(source == "system1" for source, _ in pairs) - 1000) <= 1


@few
@given(num_items=st.integers(1, 50), epoch=st.integers(0, 3), seed=st.integers(0, 5))
def test_every_item_once_per_epoch(num_items: int, epoch: int, seed: int) -> None:
    first = epoch * num_items
    drawn = [item_at(num_items, first + place, seed, "system1") for place in range(num_items)]
    assert Counter(drawn) == Counter(range(num_items))


def test_order_depends_on_epoch_seed_and_source() -> None:
    def order(epoch: int = 0, seed: int = 1, source: str = "system1") -> list[int]:
        return [item_at(40, epoch * 40 + place, seed, source) for place in range(40)]

    orders = [order(), order(epoch=1), order(seed=2), order(source="system2"), list(range(40))]
    assert len({tuple(one) for one in orders}) == len(orders)
    assert order() == orders[0]


def test_order_is_the_recorded_one() -> None:
    """A resumed or repeated run must see the same order on every supported Python."""
    assert [item_at(8, index, 1, "system1") for index in range(16)] == RECORDED


RECORDED = [0, 5, 7, 3, 2, 1, 6, 4, 7, 2, 5, 6, 0, 3, 4, 1]


@pytest.mark.parametrize(
    "windows",
    [[], [Window(1, 0.5)], [Window(0, 0.5), Window(0, 0.6)], [Window(0, 1.1)], [Window(0, float("nan"))]],
)
def test_windows_that_make_no_sense_are_refused(windows: list[Window]) -> None:
    with pytest.raises(ValueError, match="must"):
        locate(windows, 0)


def test_negative_positions_and_empty_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="position"):
        locate([Window(0, 0.5)], -1)
    with pytest.raises(ValueError, match="system2 has no items"):
        item_at(0, 0, 1, "system2")
