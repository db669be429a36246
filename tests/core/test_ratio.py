"""The ratio controllers: golden figures at full precision, the published rounded ones, and what must hold for any input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.core.ratio import (
    BoundErrors,
    Bounds,
    benefits,
    check_bounds,
    next_ratio,
    simulate,
    update,
)

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "ratio.json").read_text(encoding="utf-8"))
BOUNDS = Bounds(**GOLDEN["bounds"])
PAPER: dict[str, Any] = {"eta": 4.0, "smoothing": 1e-4, "floor": 0.0}
FREE = BoundErrors(0.0, 0.0, 0.0, 0.0)

shares = st.floats(1e-6, 1.0 - 1e-6)
gains = st.floats(0.0, 1e9)
floors = st.floats(0.0, 0.5)
smoothings = st.floats(0.0, 1.0)
etas = st.floats(0.0, 100.0)
measured = st.floats(-1e9, 1e9)
beyond = st.one_of(
    st.floats(min_value=1e9, exclude_min=True), st.floats(max_value=-1e9, exclude_max=True), st.just(math.nan)
)
few = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize(
    "row", GOLDEN["steps"], ids=lambda row: f"{row['tokens']:g}-{row['accuracy']:g}-{row['weight']:g}"
)
def test_paper_step_is_the_golden_one(row: dict[str, float]) -> None:
    step = next_ratio(
        "paper",
        BOUNDS,
        row["tokens"],
        row["accuracy"],
        (row["weight"], 1.0 - row["weight"]),
        eta=GOLDEN["eta"],
        smoothing=GOLDEN["smoothing"],
        floor=0.0,
    )
    found = (*step.weights, step.benefit1, step.benefit2)
    # A few units in the last place: exp and log differ between C libraries.
    assert found == pytest.approx(tuple(row[key] for key in ("system1", "system2", "benefit1", "benefit2")), rel=1e-14)


@pytest.mark.parametrize(
    ("tokens", "accuracy", "expected"),
    [
        (6000, 0.74, [0.9501]),
        (5000, 0.70, [0.8774]),
        (4000, 0.65, [0.7117]),
        (3000, 0.60, [0.4599]),
        (5500, 0.50, [0.6424]),
        (7379, 0.76, [0.9820, 0.9996]),
    ],
)
def test_published_figures(tokens: float, accuracy: float, expected: list[float]) -> None:
    num = len(expected)
    steps = simulate("paper", BOUNDS, (0.5, 0.5), [tokens] * num, [accuracy] * num, **PAPER)
    assert [round(step.weights[0], 4) for step in steps] == expected


@few
@given(w=shares, first=gains, second=gains, eta=etas, smoothing=smoothings, floor=floors)
def test_weights_stay_on_the_simplex_and_above_the_floor(
    w: float, first: float, second: float, eta: float, smoothing: float, floor: float
) -> None:
    moved = update((w, 1.0 - w), (first, second), eta=eta, smoothing=smoothing, floor=floor)
    assert sum(moved) == 1.0
    assert min(moved) >= floor
    assert max(moved) <= 1.0


@few
@given(w=shares, low=gains, high=gains, other=gains, eta=etas, smoothing=smoothings, floor=floors)
def test_more_benefit_never_means_less_of_its_source(
    w: float, low: float, high: float, other: float, eta: float, smoothing: float, floor: float
) -> None:
    low, high = min(low, high), max(low, high)
    rest = {"eta": eta, "smoothing": smoothing, "floor": floor}
    weights = (w, 1.0 - w)
    rounding = 1e-15
    assert update(weights, (high, other), **rest)[0] >= update(weights, (low, other), **rest)[0] - rounding
    assert update(weights, (other, high), **rest)[1] >= update(weights, (other, low), **rest)[1] - rounding


@few
@given(w=shares, step=st.floats(1e-3, 1.0), other=st.floats(0.0, 1.0))
def test_monotone_strictly_where_nothing_saturates(w: float, step: float, other: float) -> None:
    before = update((w, 1.0 - w), (other, other), **PAPER)
    assert update((w, 1.0 - w), (other + step, other), **PAPER)[0] > before[0]
    assert update((w, 1.0 - w), (other, other + step), **PAPER)[1] > before[1]


@few
@given(w=shares, gain=gains, eta=st.floats(0.0, 1e9), smoothing=smoothings)
def test_equal_benefits_leave_only_the_smoothing(w: float, gain: float, eta: float, smoothing: float) -> None:
    moved = update((w, 1.0 - w), (gain, gain), eta=eta, smoothing=smoothing, floor=0.0)
    assert moved[0] == pytest.approx((1.0 - smoothing) * w + smoothing / 2.0, rel=1e-12)


@pytest.mark.parametrize(("w", "expected"), [(0.05, 0.1), (0.5, 0.5), (0.99, 0.9)])
def test_equal_benefits_then_the_floor(w: float, expected: float) -> None:
    assert update((w, 1.0 - w), (0.3, 0.3), eta=4.0, smoothing=0.0, floor=0.1)[0] == pytest.approx(expected)


@few
@given(measured, measured, measured, measured, measured, measured, shares, st.sampled_from(["paper", "robust"]))
def test_any_values_give_weights_or_a_value_error(
    short_tokens: float,
    long_tokens: float,
    short_accuracy: float,
    long_accuracy: float,
    tokens: float,
    accuracy: float,
    w: float,
    controller: str,
) -> None:
    bounds = Bounds(short_tokens, long_tokens, short_accuracy, long_accuracy)
    rest: dict[str, Any] = {"eta": 4.0, "smoothing": 1e-4, "floor": 0.1}
    if long_tokens <= short_tokens or long_accuracy <= short_accuracy:
        with pytest.raises(ValueError, match="must be larger"):
            next_ratio(controller, bounds, tokens, accuracy, (w, 1.0 - w), **rest)
        return
    if controller == "paper":
        # The published controller has no cap: a gap this small makes a benefit that is refused.
        assume(max(benefits(bounds, tokens, accuracy, clip=False)) <= 1e9)
    step = next_ratio(controller, bounds, tokens, accuracy, (w, 1.0 - w), **rest)
    assert sum(step.weights) == 1.0
    assert all(math.isfinite(value) and value >= 0.0 for value in (*step.weights, step.benefit1, step.benefit2))
    if controller == "robust":
        assert min(step.weights) >= 0.1
        assert max(step.benefit1, step.benefit2) <= 1.0


@pytest.mark.parametrize("place", range(6))
@given(bad=beyond)
@settings(max_examples=40, deadline=None)
def test_values_beyond_the_limit_are_refused(place: int, bad: float) -> None:
    values = [1120.94, 7379.61, 0.29, 0.76, 6000.0, 0.74]
    values[place] = bad
    with pytest.raises(ValueError, match="magnitude at most"):
        next_ratio("paper", Bounds(*values[:4]), values[4], values[5], (0.5, 0.5), **PAPER)


def test_the_limit_itself_is_allowed() -> None:
    far = next_ratio("robust", Bounds(-1e9, 1e9, -1e9, 1e9), 1e9, -1e9, (0.5, 0.5), **PAPER)
    assert far.weights == (0.5, 0.5)
    assert (far.benefit1, far.benefit2) == (1.0, 1.0)


def test_a_gap_too_small_to_divide_by_is_refused_not_infinite() -> None:
    bounds = Bounds(0.0, 5e-324, 0.29, 0.76)
    with pytest.raises(ValueError, match="gain1"):
        next_ratio("paper", bounds, 6000.0, 0.74, (0.5, 0.5), **PAPER)
    assert next_ratio("robust", bounds, 6000.0, 0.74, (0.5, 0.5), **PAPER).benefit1 == 1.0


def test_a_source_without_weight_stays_without_until_it_is_smoothed() -> None:
    assert update((0.0, 1.0), (1e9, 0.0), eta=4.0, smoothing=0.0, floor=0.0) == (0.0, 1.0)
    assert update((1.0, 0.0), (0.0, 1e9), eta=4.0, smoothing=0.01, floor=0.0)[1] == pytest.approx(0.005)


def test_paper_controller_saturates_and_robust_keeps_its_floor() -> None:
    path: dict[str, Any] = {"tokens": [7379.0] * 6, "accuracy": [0.76] * 6, "eta": 4.0, "smoothing": 1e-4, "floor": 0.1}
    assert simulate("paper", BOUNDS, (0.5, 0.5), **path)[-1].weights[0] > 0.9999
    assert {step.weights[0] for step in simulate("robust", BOUNDS, (0.5, 0.5), **path)} == {0.9}


def test_clip_caps_what_the_paper_lets_through() -> None:
    uncapped = ((20_000.0 - 1120.94) / 6258.67, 0.66 / 0.47)
    assert benefits(BOUNDS, 20_000.0, 0.1, clip=False) == pytest.approx(uncapped, rel=1e-12)
    assert benefits(BOUNDS, 20_000.0, 0.1, clip=True) == (1.0, 1.0)
    assert benefits(BOUNDS, 100.0, 0.9, clip=False) == benefits(BOUNDS, 100.0, 0.9, clip=True) == (0.0, 0.0)


def test_benefit_smoothing_carries_over_in_robust_only() -> None:
    options: dict[str, Any] = {**PAPER, "benefit_smoothing": 0.5, "previous": (0.0, 1.0)}
    robust = next_ratio("robust", BOUNDS, 7379.61, 0.76, (0.5, 0.5), **options)
    paper = next_ratio("paper", BOUNDS, 7379.61, 0.76, (0.5, 0.5), **options)
    assert (robust.benefit1, robust.benefit2) == pytest.approx((0.5, 0.5))
    assert (paper.benefit1, paper.benefit2) == pytest.approx((1.0, 0.0))


def test_simulate_chains_single_decisions() -> None:
    options: dict[str, Any] = {"eta": 2.0, "smoothing": 1e-3, "floor": 0.05, "benefit_smoothing": 0.3}
    tokens, accuracy = [7000.0, 5000.0, 3000.0], [0.75, 0.60, 0.70]
    steps = simulate("robust", BOUNDS, (0.4, 0.6), tokens, accuracy, **options)
    weights, previous = (0.4, 0.6), None
    for step, mean_tokens, mean_accuracy in zip(steps, tokens, accuracy, strict=True):
        alone = next_ratio("robust", BOUNDS, mean_tokens, mean_accuracy, weights, **options, previous=previous)
        assert step == alone
        weights, previous = alone.weights, (alone.benefit1, alone.benefit2)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (Bounds(7379.61, 1120.94, 0.29, 0.76), r"long_tokens \(1120.94\) must be larger than short_tokens"),
        (Bounds(1120.94, 7379.61, 0.76, 0.76), r"long_accuracy \(0.76\) must be larger than short_accuracy"),
    ],
)
def test_wrong_sign_names_the_pair(bounds: Bounds, message: str) -> None:
    for act in (lambda: check_bounds(bounds, FREE, 3.0), lambda: benefits(bounds, 6000.0, 0.74, clip=True)):
        with pytest.raises(ValueError, match=message):
            act()


def test_gap_within_the_noise_is_refused() -> None:
    bounds = Bounds(100.0, 110.0, 0.29, 0.76)
    check_bounds(bounds, BoundErrors(1.9, 1.9, 0.01, 0.01), 3.0)
    with pytest.raises(ValueError, match=r"long_tokens .* within 3 standard errors"):
        check_bounds(bounds, BoundErrors(3.0, 3.0, 0.01, 0.01), 3.0)
    with pytest.raises(ValueError, match=r"long_accuracy .* within 3 standard errors"):
        check_bounds(bounds, BoundErrors(0.0, 0.0, 0.0, 0.47 / 3.0 + 1e-9), 3.0)
    with pytest.raises(ValueError, match="num_errors"):
        check_bounds(bounds, FREE, math.nan)


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="paper or robust"):
        next_ratio("bold", BOUNDS, 6000.0, 0.74, (0.5, 0.5), **PAPER)
    for weights in ((0.5, 0.6), (-0.1, 1.1), (math.nan, 0.5), (0.5, math.nan)):
        with pytest.raises(ValueError, match="sum to 1"):
            update(weights, (0.1, 0.1), **PAPER)
    for change in ({"smoothing": 1.1}, {"floor": 0.6}, {"floor": math.nan}):
        with pytest.raises(ValueError, match="must lie in"):
            update((0.5, 0.5), (0.1, 0.1), **{**PAPER, **change})
    with pytest.raises(ValueError, match="benefit_smoothing"):
        next_ratio("robust", BOUNDS, 6000.0, 0.74, (0.5, 0.5), **PAPER, benefit_smoothing=1.0, previous=(0.0, 0.0))
    with pytest.raises(ValueError, match="negative"):
        BoundErrors(-1.0, 0.0, 0.0, 0.0)
