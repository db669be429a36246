"""Three controllers of the System-1 / System-2 ratio: as published, hardened, and with accuracy as a constraint.

Source of `paper`: TLDR (arXiv 2506.02678), its re-weighting equations, and the authors' code (github zzli2022/TLDR @
a460888). All three end in the same multiplicative update and differ in the two benefits that they give it. Weights are
(System-1, System-2) sampling shares by example count. Pure: what a decision needs of the past comes in as an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.core.bounds import BoundErrors, Bounds, check_bounds, require_finite


@dataclass(frozen=True)
class RatioStep:
    """New weights (System-1, System-2), the benefits that led to them, and the multiplier that they stand for.

    What the next decision needs is all here: `robust` mixes in the benefits, and the multiplier of `lagrangian` (None
    for the others) is a function of the weights.
    """

    weights: tuple[float, float]
    benefit1: float
    benefit2: float
    multiplier: float | None = None


@dataclass(frozen=True)
class Dual:
    """Settings of `lagrangian`: accuracy that may be lost (a fraction), largest step of the multiplier (log-odds of the
    share), and how many standard errors around the constraint are not acted upon."""

    margin: float
    dual_step: float
    dead_zone: float

    def __post_init__(self) -> None:
        require_finite(**vars(self))
        if not (0.0 < self.margin < 1.0 and self.dual_step > 0.0 and self.dead_zone >= 0.0):
            raise ValueError(
                f"margin must lie in (0, 1), dual_step above 0 and dead_zone at or above 0, not {self.margin!r}, "
                f"{self.dual_step!r} and {self.dead_zone!r}"
            )


def benefits(bounds: Bounds, tokens: float, accuracy: float, *, clip: bool) -> tuple[float, float]:
    """(still too long, lost accuracy), each at least 0; `clip` also caps them at 1.

    ValueError if a gap of `bounds` has the wrong sign or a value is not a number of magnitude at most `LARGEST`.
    """
    require_finite(tokens=tokens, accuracy=accuracy)
    check_bounds(bounds, BoundErrors(0.0, 0.0, 0.0, 0.0), 0.0)
    too_long = max((tokens - bounds.short_tokens) / (bounds.long_tokens - bounds.short_tokens), 0.0)
    lost = max((bounds.long_accuracy - accuracy) / (bounds.long_accuracy - bounds.short_accuracy), 0.0)
    return (min(too_long, 1.0), min(lost, 1.0)) if clip else (too_long, lost)


def update(
    weights: tuple[float, float], gains: tuple[float, float], *, eta: float, smoothing: float, floor: float
) -> tuple[float, float]:
    """w_i <- w_i exp(eta * gain_i), normalised; mixed with `smoothing` of the uniform ratio; at least `floor` each.

    The result sums to 1 exactly. ValueError for weights that do not, or a gain or eta beyond `LARGEST` (a gap of the
    bounds too small to divide by).
    """
    _require_weights(weights)
    require_finite(gain1=gains[0], gain2=gains[1], eta=eta)
    if not (0.0 <= smoothing <= 1.0 and 0.0 <= floor <= 0.5):
        raise ValueError(f"smoothing must lie in [0, 1] and floor in [0, 0.5], not {smoothing!r} and {floor!r}")
    # Measured from the larger gain: equal gains then change nothing, however large, and nothing overflows.
    steps = [eta * (gain - max(gains)) for gain in gains]
    logits = [math.log(w) + step if w > 0.0 else -math.inf for w, step in zip(weights, steps, strict=True)]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    first = (1.0 - smoothing) * powers[0] / (powers[0] + powers[1]) + smoothing / 2.0
    first = min(max(first, floor), 1.0 - floor)
    return first, max(1.0 - first, floor)  # 1 - (1 - floor) can round to just below the floor


def paper(
    bounds: Bounds, tokens: float, accuracy: float, weights: tuple[float, float], *, eta: float, smoothing: float
) -> RatioStep:
    """As published: benefits without a cap, weights without a floor."""
    gains = benefits(bounds, tokens, accuracy, clip=False)
    return RatioStep(update(weights, gains, eta=eta, smoothing=smoothing, floor=0.0), *gains)


def robust(
    bounds: Bounds,
    tokens: float,
    accuracy: float,
    weights: tuple[float, float],
    *,
    eta: float,
    smoothing: float,
    floor: float,
    benefit_smoothing: float,
    previous: tuple[float, float] | None,
) -> RatioStep:
    """Benefits capped at 1 and mixed with `benefit_smoothing` of the `previous` ones; at least `floor` of each source."""
    gains = benefits(bounds, tokens, accuracy, clip=True)
    if previous is not None:
        if not 0.0 <= benefit_smoothing < 1.0:
            raise ValueError(f"benefit_smoothing must lie in [0, 1), not {benefit_smoothing!r}")
        kept = benefit_smoothing
        gains = (kept * previous[0] + (1.0 - kept) * gains[0], kept * previous[1] + (1.0 - kept) * gains[1])
    return RatioStep(update(weights, gains, eta=eta, smoothing=smoothing, floor=floor), *gains)


def lagrangian(
    bounds: Bounds,
    tokens: float,
    accuracy: float,
    weights: tuple[float, float],
    *,
    floor: float,
    loss_error: float,
    dual: Dual,
) -> RatioStep:
    """Fewest tokens subject to accuracy >= long_accuracy - margin, by dual ascent on the multiplier of the constraint.

    With c = log((1 - floor) / floor), the shares that maximise the entropy-regularised Lagrangian
    c * w_1 + multiplier * w_2 + H(w) have log(w_1 / w_2) = c - multiplier: the ceiling at multiplier 0, the floor at
    2 c. The multiplier follows the violation v of `shown_violation`,

        multiplier <- multiplier + dual_step * (benefit_2 - benefit_1), kept in [0, 2 c]
        benefit_2 = max(v, 0)                          accuracy that is shown to be lost -> more System-2
        benefit_1 = max(-v, 0) * too long, in [0, 1]   shown slack, while answers are too long -> more System-1

    so this is the multiplicative update of the other two with eta = dual_step, the share carries the multiplier, and no
    step moves the log-odds by more than `dual_step`. Solving for the share leaves one integrator in the loop: gradient
    steps on both variables make two, which is what oscillates in Stooke et al. (arXiv 2007.03964). Dual ascent: Boyd et
    al. 2011, Distributed Optimization and Statistical Learning via ADMM, section 2.1; the bounded multiplier, which
    keeps nothing to unwind after a long violation: Nedic and Ozdaglar 2009, SIAM J. Optim. 19(4).
    """
    if not 0.0 < floor < 0.5:
        raise ValueError(f"floor must lie in (0, 0.5) for lagrangian, not {floor!r}")
    too_long, _ = benefits(bounds, tokens, accuracy, clip=True)
    violation = shown_violation(bounds.long_accuracy - accuracy, loss_error, dual)
    gains = (max(0.0, -violation) * too_long, max(0.0, violation))
    moved = update(weights, gains, eta=dual.dual_step, smoothing=0.0, floor=floor)
    ceiling = math.log((1.0 - floor) / floor)
    return RatioStep(moved, *gains, max(0.0, ceiling - math.log(moved[0] / moved[1])))


def shown_violation(loss: float, loss_error: float, dual: Dual) -> float:
    """How far `loss` (of accuracy, a fraction) lies beyond the margin, as far as its standard error lets one say; [-1, 1].

    Soft threshold (Donoho and Johnstone 1994, Biometrika 81(3)): `dead_zone` standard errors are taken off the distance
    on either side, alike, so that noise around the constraint does not move it. In units of hypot(margin, loss_error): a
    control set that cannot resolve the margin is followed more slowly. Capped: one measurement counts for one unit.
    """
    require_finite(loss=loss, loss_error=loss_error)
    if loss_error < 0.0:
        raise ValueError(f"loss_error is negative: {loss_error!r}")
    distance = loss - dual.margin
    shown = max(abs(distance) - dual.dead_zone * loss_error, 0.0) / math.hypot(dual.margin, loss_error)
    return math.copysign(min(shown, 1.0), distance)


def benefit_errors(
    bounds: Bounds, tokens_error: float, accuracy_error: float, loss_error: float, dual: Dual | None
) -> tuple[float, float]:
    """Standard errors of the two benefits before any smoothing; with `dual`, those of lagrangian, as upper bounds.

    Upper bounds because its dead zone and its caps only flatten the response.
    """
    too_long_error = tokens_error / (bounds.long_tokens - bounds.short_tokens)
    if dual is None:
        return too_long_error, accuracy_error / (bounds.long_accuracy - bounds.short_accuracy)
    violation_error = loss_error / math.hypot(dual.margin, loss_error)
    return math.hypot(too_long_error, violation_error), violation_error


def _require_weights(weights: tuple[float, float]) -> None:
    if not (min(weights) >= 0.0 and abs(weights[0] + weights[1] - 1.0) <= 1e-9):
        raise ValueError(f"weights must be shares that sum to 1, not {weights!r}")
