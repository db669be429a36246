"""The mixture: the realised counts are the requested ones, and a position means the same wherever one starts."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import accumulate, groupby

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.core.mixing import Mixture, Window, assignments, item_at, locate

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


Lengths = dict[str, list[int]]


@st.composite
def tokens(draw: st.DrawFn) -> Lengths:
    """Response tokens of 1 to 8,000, heavy-tailed: uniform in the logarithm, with both ends often."""
    one = st.one_of(st.floats(0.0, 1.0).map(lambda x: round(8000**x)), st.sampled_from([1, 2, 8000]))
    return {source: draw(st.lists(one, min_size=1, max_size=12)) for source in ("system1", "system2")}


def errors(lengths: Lengths, windows: list[Window], pairs: list[tuple[str, int]]) -> list[Fraction]:
    """System-1 tokens placed less those requested, before position 0 and after each of `pairs` (from position 0)."""
    shares = [Fraction(w.short_share) for n in range(len(pairs)) for w in [[w for w in windows if w.start <= n][-1]]]
    moved = [
        lengths[source][item] * ((source == "system1") - share)
        for (source, item), share in zip(pairs, shares, strict=True)
    ]
    return [Fraction(0), *accumulate(moved)]


def longest(lengths: Lengths) -> int:
    return max(max(items) for items in lengths.values())


@few
@given(lengths=tokens(), windows=mixtures(), start=st.integers(0, 300), length=st.integers(0, 60))
def test_by_examples_is_the_order_of_assignments(
    lengths: Lengths, windows: list[Window], start: int, length: int
) -> None:
    wanted = [
        (source, item_at(len(lengths[source]), index, 3, source))
        for source, index in assignments(windows, start, start + length)
    ]
    assert Mixture(lengths, 3, "examples").batch(windows, start, start + length) == wanted


def test_both_orders_are_the_recorded_ones() -> None:
    """A resumed or repeated run must see the same batches, in every process and on every supported Python."""
    lengths = {"system1": [40, 7, 90, 12, 55], "system2": [70, 210, 35]}
    windows = [Window(0, 0.3), Window(8, 0.75)]
    assert brief(Mixture(lengths, 1, "examples").batch(windows, 0, 16)) == BY_EXAMPLES
    assert brief(Mixture(lengths, 1, "tokens").batch(windows, 0, 16)) == BY_TOKENS


def brief(pairs: list[tuple[str, int]]) -> str:
    """The pairs as source number and item number, such as `1.4 2.0`."""
    return " ".join(f"{source.removeprefix('system')}.{item}" for source, item in pairs)


BY_EXAMPLES = "2.1 1.0 2.2 2.0 1.4 2.0 2.1 2.2 1.3 1.1 1.2 2.2 1.3 1.1 1.2 2.0"
BY_TOKENS = "1.0 2.1 1.4 2.2 1.3 1.1 2.0 2.0 1.2 1.3 1.1 1.2 1.0 1.4 1.4 1.1"


def test_half_of_the_tokens_is_not_half_of_the_examples() -> None:
    lengths = {"system1": [100], "system2": [300]}
    pairs = Mixture(lengths, 1, "tokens").batch([Window(0, 0.5)], 0, 8)
    assert [source[-1] for source, _ in pairs] == list("11211121")


@pytest.mark.parametrize(
    ("share", "first"), [(0.5, "system1"), (0.25, "system2"), (0.1 + 0.2, "system2"), (0.8, "system1")]
)
def test_of_two_choices_that_are_as_good_the_larger_share_is_served(share: float, first: str) -> None:
    """Also under shares that floating point does not hold exactly."""
    lengths = {"system1": [round(60 * share)], "system2": [round(60 * (1 - share))]}
    assert Mixture(lengths, 1, "tokens").batch([Window(0, share)], 0, 1)[0][0] == first


@few
@given(lengths=tokens(), windows=mixtures(), num_last=st.integers(1, 200), seed=st.integers(0, 5))
def test_tokens_are_within_the_proven_bound(lengths: Lengths, windows: list[Window], num_last: int, seed: int) -> None:
    """Half the longest example from position 0, so one longest example over any stretch: the spread of the errors."""
    pairs = Mixture(lengths, seed, "tokens").batch(windows, 0, windows[-1].start + num_last)
    carried = errors(lengths, windows, pairs)
    rounding = Fraction(1, 10**4)  # of shares, 1e-12 of the tokens placed
    assert max(map(abs, carried)) <= Fraction(longest(lengths), 2) + rounding
    assert max(carried) - min(carried) <= longest(lengths) + rounding


@few
@given(lengths=tokens(), windows=mixtures(), num_last=st.integers(1, 60))
def test_a_share_of_0_or_1_admits_one_source(lengths: Lengths, windows: list[Window], num_last: int) -> None:
    pairs = Mixture(lengths, 1, "tokens").batch(windows, 0, windows[-1].start + num_last)
    ends = [*(window.start for window in windows[1:]), len(pairs)]
    for window, end in zip(windows, ends, strict=True):
        if window.short_share in (0.0, 1.0):
            only = "system1" if window.short_share else "system2"
            assert {source for source, _ in pairs[window.start : end]} == {only}


@few
@given(lengths=tokens(), windows=mixtures(), num_last=st.integers(1, 60), seed=st.integers(0, 5))
def test_by_tokens_each_source_keeps_its_own_order(
    lengths: Lengths, windows: list[Window], num_last: int, seed: int
) -> None:
    pairs = Mixture(lengths, seed, "tokens").batch(windows, 0, windows[-1].start + num_last)
    for source, items in lengths.items():
        drawn = [item for name, item in pairs if name == source]
        assert drawn == [item_at(len(items), index, seed, source) for index in range(len(drawn))]


@few
@given(size=st.integers(1, 8000), windows=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_equal_lengths_give_the_order_by_examples(size: int, windows: list[float]) -> None:
    """Where tokens and examples are the same unit; but for ties, which the two orders break each in its own way."""
    steps = [Window(16 * n, share) for n, share in enumerate(windows)]
    requested = accumulate(Fraction(window.short_share) for window in steps for _ in range(16))
    assume(all(abs(count % 1 - Fraction(1, 2)) > Fraction(1, 10**8) for count in requested))
    pairs = Mixture({"system1": [size], "system2": [size]}, 1, "tokens").batch(steps, 0, 16 * len(steps))
    assert [source for source, _ in pairs] == [source for source, _ in assignments(steps, 0, 16 * len(steps))]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(("short", "long"), [([900], [1]), ([1], [900]), ([1, 900, 1], [300, 900]), ([3], [3])])
def test_no_source_starves(short: list[int], long: list[int], share: float) -> None:
    """No run of one source holds more tokens than the longest example over the other source's share."""
    lengths = {"system1": short, "system2": long}
    limit = longest(lengths) / min(share, 1 - share)
    # Another share and a stretch of one source alone hand over whatever error they ended with.
    windows = [Window(0, 0.9), Window(50, 0.0), Window(90, share)]
    pairs = Mixture(lengths, 1, "tokens").batch(windows, 0, 90 + round(3 * limit))[90:]
    runs = [(source, [item for _, item in run]) for source, run in groupby(pairs, key=lambda pair: pair[0])]
    assert {source for source, _ in runs} == {"system1", "system2"}
    assert max(sum(lengths[source][item] for item in items) for source, items in runs) <= limit + 1e-6


def test_shares_next_to_0_and_1_are_not_rounded_to_them() -> None:
    """Their sources are asked for, if ever so seldom."""
    with pytest.raises(ValueError, match="system1 has no items"):
        Mixture({"system1": [], "system2": [1]}, 1, "tokens").batch([Window(0, 5e-324)], 0, 1)
    with pytest.raises(ValueError, match="system2 has no items"):
        Mixture({"system1": [1], "system2": []}, 1, "tokens").batch([Window(0, 1 - 2**-53)], 0, 1)


@few
@given(
    lengths=tokens(),
    windows=mixtures(),
    changed=st.integers(0, 8),
    unit=st.sampled_from(["tokens", "examples"]),
    questions=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 40)), min_size=2, max_size=8),
)
def test_no_earlier_question_changes_an_answer(
    lengths: Lengths, windows: list[Window], changed: int, unit: str, questions: list[tuple[int, int, int]]
) -> None:
    """Whatever the object keeps: other positions, fewer or more windows, another share in one that was already asked."""
    other = [
        Window(w.start, 1 - w.short_share / 2) if n == changed % len(windows) else w for n, w in enumerate(windows)
    ]
    moved = [Window(w.start + (w.start > 0), w.short_share) for w in windows]
    asked = Mixture(lengths, 1, unit)
    for which, start, length in questions:
        known = [windows, windows[:1], other, moved][which]
        fresh = Mixture(lengths, 1, unit)
        assert asked.batch(known, start, start + length) == fresh.batch(known, start, start + length)
        assert asked.batch(known, start + length, start + length + 5) == fresh.batch(known, 0, start + length + 5)[-5:]


def test_a_window_that_changes_at_the_last_position_asked_changes_what_follows() -> None:
    lengths = {"system1": [5, 9], "system2": [400]}
    asked = Mixture(lengths, 1, "tokens")
    asked.batch([Window(0, 1.0), Window(9, 0.5)], 0, 10)
    changed = [Window(0, 1.0), Window(9, 0.0), Window(10, 0.5)]
    assert asked.batch(changed, 10, 80) == Mixture(lengths, 1, "tokens").batch(changed, 10, 80)


def test_an_empty_stretch_changes_no_answer() -> None:
    lengths, windows = {"system1": [5, 9], "system2": [40]}, [Window(0, 0.4)]
    asked = Mixture(lengths, 1, "tokens")
    asked.batch(windows, 0, 10)
    assert asked.batch(windows, 12, 5) == []
    assert asked.batch(windows, 5, 15) == Mixture(lengths, 1, "tokens").batch(windows, 5, 15)


def test_a_question_that_was_refused_changes_no_answer() -> None:
    lengths = {"system1": [5, 9], "system2": []}
    asked = Mixture(lengths, 1, "tokens")
    only = [Window(0, 1.0)]
    first = asked.batch(only, 0, 4)
    both = [*only, Window(6, 0.5), Window(7, 1.0)]
    for start in (4, 8):
        with pytest.raises(ValueError, match="system2 has no items"):
            asked.batch(both, start, start + 4)
    assert first + asked.batch(only, 4, 8) == Mixture(lengths, 1, "tokens").batch(only, 0, 8)


def test_lengths_that_change_afterwards_change_no_answer() -> None:
    lengths = {"system1": [5, 900, 31], "system2": [70, 8]}
    asked = Mixture(lengths, 1, "tokens")
    lengths["system1"][1] = 1
    lengths["system2"].append(4000)
    wanted = Mixture({"system1": [5, 900, 31], "system2": [70, 8]}, 1, "tokens").batch([Window(0, 0.6)], 0, 50)
    assert asked.batch([Window(0, 0.6)], 0, 50) == wanted


@pytest.mark.timeout(60)  # under a second; a replay of everything at every step takes minutes
def test_a_whole_run_step_by_step_is_the_run_at_once() -> None:
    lengths = {"system1": [1 + n * n % 211 for n in range(700)], "system2": [1 + n**3 % 7993 for n in range(400)]}
    asked, windows, pairs = Mixture(lengths, 1, "tokens"), [], []
    for step in range(2000):
        if step % 32 == 0:
            windows = [*windows, Window(64 * step, step * 7 % 100 / 99)]
        pairs += asked.batch(windows, 64 * step, 64 * step + 64)
    assert pairs == Mixture(lengths, 1, "tokens").batch(windows, 0, 128_000)


@pytest.mark.parametrize(
    ("lengths", "unit", "match"),
    [
        ({"system1": [3], "system2": [4]}, "characters", "unit of the mixture must be examples or tokens"),
        ({"system1": [3], "system2": [4, 0]}, "tokens", "one of system2 has 0"),
        ({"system1": [-2], "system2": [4]}, "examples", "one of system1 has -2"),
        ({"system1": [3]}, "tokens", "must have the sources system1 and system2"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(lengths: Lengths, unit: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Mixture(lengths, 1, unit)


@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_batches_that_make_no_sense_are_refused(unit: str) -> None:
    mixture = Mixture({"system1": [3], "system2": [4]}, 1, unit)
    with pytest.raises(ValueError, match="position"):
        mixture.batch([Window(0, 0.5)], -1, 3)
    with pytest.raises(ValueError, match="must"):
        mixture.batch([Window(1, 0.5)], 0, 3)
    assert mixture.batch([Window(0, 0.5)], 3, 3) == []


@pytest.mark.parametrize("unit", ["examples", "tokens"])
@pytest.mark.parametrize(("empty", "share"), [("system1", 0.0), ("system2", 1.0)])
def test_an_empty_source_is_refused_only_where_it_is_asked_for(unit: str, empty: str, share: float) -> None:
    mixture = Mixture({"system1": [3], "system2": [4]} | {empty: []}, 1, unit)
    only = "system1" if share else "system2"
    assert mixture.batch([Window(0, share)], 0, 3) == [(only, 0)] * 3
    with pytest.raises(ValueError, match=f"{empty} has no items"):
        mixture.batch([Window(0, share), Window(3, 0.5)], 3, 6)
