"""The lagrangian controller: what must hold for any input."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.controllers import shown_violation
from stages.core.ratio import Bounds, Dual, RatioStep, benefit_errors, next_ratio, simulate

BOUNDS = Bounds(1120.94, 7379.61, 0.29, 0.76)
DUAL = Dual(margin=0.01, dual_step=0.5, dead_zone=0.5)
ROUNDING = 1e-12

floors = st.floats(1e-3, 0.45)
duals = st.builds(Dual, st.floats(1e-4, 0.5), st.floats(1e-3, 10.0), st.floats(0.0, 3.0))
errors = st.floats(0.0, 0.5)
tokens = st.floats(0.0, 20_000.0)
accuracies = st.floats(0.0, 1.0)
places = st.floats(0.0, 1.0)  # of a share between the floor and the ceiling
few = settings(max_examples=300, deadline=None)


def step(
    mean_tokens: float, accuracy: float, share: float, floor: float = 0.1, loss_error: float = 0.005, dual: Dual = DUAL
) -> RatioStep:
    weights = (share, 1.0 - share)
    rest: dict[str, Any] = {"eta": 4.0, "smoothing": 1e-4, "floor": floor, "loss_error": loss_error, "dual": dual}
    return next_ratio("lagrangian", BOUNDS, mean_tokens, accuracy, weights, **rest)


def log_odds(share: float) -> float:
    return math.log(share / (1.0 - share))


def between(place: float, floor: float) -> float:
    return floor + place * (1.0 - 2.0 * floor)


@few
@given(tokens, accuracies, st.floats(0.0, 1.0), floors, errors, duals)
def test_shares_sum_to_one_within_the_floor_and_the_multiplier_is_not_negative(
    mean_tokens: float, accuracy: float, share: float, floor: float, loss_error: float, dual: Dual
) -> None:
    found = step(mean_tokens, accuracy, share, floor, loss_error, dual)
    assert sum(found.weights) == 1.0
    assert min(found.weights) >= floor
    assert found.multiplier is not None
    assert 0.0 <= found.multiplier <= 2.0 * log_odds(1.0 - floor) + ROUNDING
    assert 0.0 <= found.benefit1 <= 1.0 and 0.0 <= found.benefit2 <= 1.0
    assert min(found.benefit1, found.benefit2) == 0.0


@few
@given(tokens, accuracies, places, floors, errors, duals)
def test_the_share_carries_the_multiplier_and_moves_by_the_dual_step_at_most(
    mean_tokens: float, accuracy: float, place: float, floor: float, loss_error: float, dual: Dual
) -> None:
    share = between(place, floor)
    found = step(mean_tokens, accuracy, share, floor, loss_error, dual)
    ceiling = log_odds(1.0 - floor)
    before = ceiling - log_odds(share)
    rule = min(max(before + dual.dual_step * (found.benefit2 - found.benefit1), 0.0), 2.0 * ceiling)
    assert found.multiplier == pytest.approx(rule, abs=1e-9)
    assert abs(log_odds(found.weights[0]) - log_odds(share)) <= dual.dual_step + 1e-9


@few
@given(tokens, places, floors, errors, duals, st.floats(0.0, 1.0))
def test_accuracy_below_the_constraint_beyond_noise_never_raises_the_share(
    mean_tokens: float, place: float, floor: float, loss_error: float, dual: Dual, further: float
) -> None:
    share = between(place, floor)
    accuracy = BOUNDS.long_accuracy - dual.margin - dual.dead_zone * loss_error - further
    assert step(mean_tokens, accuracy, share, floor, loss_error, dual).weights[0] <= share + ROUNDING


@few
@given(st.floats(1200.0, 20_000.0), st.floats(0.0, 0.99), floors, st.floats(0.0, 0.05), st.floats(0.0, 3.0))
def test_accuracy_far_above_raises_the_share_while_answers_are_too_long(
    mean_tokens: float, place: float, floor: float, loss_error: float, dead_zone: float
) -> None:
    share, dual = between(place, floor), Dual(0.01, 0.5, dead_zone)
    raised = step(mean_tokens, BOUNDS.long_accuracy + 0.2, share, floor, loss_error, dual).weights[0]
    assert raised > share
    assert step(1120.0, BOUNDS.long_accuracy + 0.2, share, floor, loss_error, dual).weights[0] <= share + ROUNDING


@few
@given(tokens, tokens, accuracies, accuracies, places, errors, duals)
def test_more_accuracy_or_more_tokens_never_lower_the_share(
    low_tokens: float, high_tokens: float, low: float, high: float, place: float, loss_error: float, dual: Dual
) -> None:
    share = between(place, 0.1)
    low, high = min(low, high), max(low, high)
    low_tokens, high_tokens = min(low_tokens, high_tokens), max(low_tokens, high_tokens)
    rest = (share, 0.1, loss_error, dual)
    assert step(low_tokens, low, *rest).weights[0] <= step(low_tokens, high, *rest).weights[0] + ROUNDING
    assert step(low_tokens, high, *rest).weights[0] <= step(high_tokens, high, *rest).weights[0] + ROUNDING


@few
@given(tokens, accuracies, places, floors, errors, duals)
def test_equal_inputs_give_equal_outputs(
    mean_tokens: float, accuracy: float, place: float, floor: float, loss_error: float, dual: Dual
) -> None:
    share = between(place, floor)
    first = step(mean_tokens, accuracy, share, floor, loss_error, dual)
    step(7000.0, 0.1, 0.5)
    assert step(mean_tokens, accuracy, share, floor, loss_error, dual) == first


@few
@given(tokens, places, st.floats(-1.0, 1.0))
def test_the_dead_zone_moves_nothing(mean_tokens: float, place: float, inside: float) -> None:
    share, loss_error = between(place, 0.1), 0.02
    accuracy = BOUNDS.long_accuracy - DUAL.margin + 0.999 * inside * DUAL.dead_zone * loss_error
    found = step(mean_tokens, accuracy, share, loss_error=loss_error)
    assert found.weights[0] == pytest.approx(share, abs=1e-14)
    assert math.copysign(1.0, found.benefit1) == math.copysign(1.0, found.benefit2) == 1.0


@few
@given(st.floats(-1.0, 1.0), errors, errors, duals)
def test_a_noisier_control_set_is_followed_less(distance: float, one: float, other: float, dual: Dual) -> None:
    clear, noisy = (abs(shown_violation(dual.margin + distance, e, dual)) for e in sorted((one, other)))
    assert noisy <= clear + ROUNDING
    found = shown_violation(dual.margin + distance, one, dual)
    assert found == 0.0 or math.copysign(1.0, found) == math.copysign(1.0, distance)


@pytest.mark.parametrize(
    ("loss", "loss_error", "expected"),
    [
        (0.01, 0.0, 0.0),
        (0.015, 0.0, 0.5),
        (0.005, 0.0, -0.5),
        (0.0, 0.0, -1.0),
        (0.5, 0.0, 1.0),
        (0.02, 0.01, 0.005 / math.hypot(0.01, 0.01)),
        (0.0, 0.02, 0.0),
        (0.014, 0.01, 0.0),
    ],
)
def test_the_violation_is_in_units_of_margin_and_error(loss: float, loss_error: float, expected: float) -> None:
    assert shown_violation(loss, loss_error, DUAL) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_the_noise_free_fixed_point_lies_at_the_constraint_and_nowhere_else(share: float) -> None:
    at = BOUNDS.long_accuracy - DUAL.margin
    assert step(5000.0, at, share, loss_error=0.0).weights[0] == pytest.approx(share, abs=1e-14)
    if share < 0.9:
        assert step(5000.0, at + 1e-3, share, loss_error=0.0).weights[0] > share
    if share > 0.1:
        assert step(5000.0, at - 1e-3, share, loss_error=0.0).weights[0] < share


def test_a_share_outside_the_floor_is_brought_inside() -> None:
    assert step(5000.0, 0.76, 0.0).weights[0] == 0.1
    assert step(5000.0, 0.2, 1.0).weights[0] == 0.9


def test_a_long_violation_leaves_nothing_to_unwind() -> None:
    rest: dict[str, Any] = {"eta": 4.0, "smoothing": 0.0, "floor": 0.1, "loss_error": 0.0, "dual": DUAL}
    steps = simulate("lagrangian", BOUNDS, (0.5, 0.5), [7000.0] * 101, [0.5] * 100 + [0.76], **rest)
    assert steps[99].weights[0] == 0.1
    assert steps[99].multiplier == pytest.approx(2.0 * log_odds(0.9))
    assert steps[100].weights[0] > 0.14


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mean_tokens": math.nan}, "tokens must be a number"),
        ({"mean_tokens": 1e10}, "tokens must be a number"),
        ({"accuracy": math.inf}, "accuracy must be a number"),
        ({"loss_error": math.nan}, "loss_error must be a number"),
        ({"loss_error": math.inf}, "loss_error must be a number"),
        ({"loss_error": -0.1}, "loss_error is negative"),
        ({"share": 1.5}, "weights must be shares"),
        ({"share": math.nan}, "weights must be shares"),
        ({"floor": 0.0}, r"floor must lie in \(0, 0.5\)"),
        ({"floor": math.nan}, r"floor must lie in \(0, 0.5\)"),
    ],
)
def test_values_that_make_no_ratio_are_refused_by_name(change: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        step(**{"mean_tokens": 5000.0, "accuracy": 0.7, "share": 0.5} | change)


@pytest.mark.parametrize("bad", [(0.0, 0.5, 1.0), (1.0, 0.5, 1.0), (0.01, 0.0, 1.0), (0.01, 0.5, -1.0)])
def test_settings_are_checked(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="margin must lie in"):
        Dual(*bad)
    with pytest.raises(ValueError, match="dual_step must be a number"):
        Dual(0.01, math.nan, 1.0)


def test_the_controller_asks_for_its_settings() -> None:
    with pytest.raises(ValueError, match="lagrangian needs its settings"):
        next_ratio("lagrangian", BOUNDS, 5000.0, 0.7, (0.5, 0.5), eta=4.0, smoothing=0.0, floor=0.1)


def test_errors_of_the_benefits() -> None:
    plain = benefit_errors(BOUNDS, 62.5867, 0.0047, 0.02, None)
    assert plain == pytest.approx((0.01, 0.01))
    steered = benefit_errors(BOUNDS, 62.5867, 0.0047, 0.01, DUAL)
    assert steered == pytest.approx((math.hypot(0.01, math.sqrt(0.5)), math.sqrt(0.5)))
