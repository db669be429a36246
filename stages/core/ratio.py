"""How the System-1 / System-2 ratio moves: the fifteen lines that are the paper, and the checks that keep them honest.

Source: TLDR (arXiv 2506.02678), its re-weighting equations, and the authors' code (github zzli2022/TLDR @ a460888).
Weights are (System-1, System-2) sampling shares by example count. Tokens are mean output tokens per answer, accuracies
are fractions. Everything is numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

LARGEST = 1e9  # magnitude beyond which a measurement is refused


@dataclass(frozen=True)
class Bounds:
    """References on the control set: the short-CoT model (or estimate) and the original long-CoT model."""

    short_tokens: float
    long_tokens: float
    short_accuracy: float
    long_accuracy: float

    def __post_init__(self) -> None:
        _require_finite(**vars(self))


@dataclass(frozen=True)
class BoundErrors:
    """Standard errors of `Bounds`, field by field; 0 for a figure that was chosen rather than measured."""

    short_tokens: float
    long_tokens: float
    short_accuracy: float
    long_accuracy: float

    def __post_init__(self) -> None:
        _require_finite(**vars(self))
        for field in fields(self):
            if getattr(self, field.name) < 0.0:
                raise ValueError(f"the standard error of {field.name} is negative: {getattr(self, field.name)!r}")


@dataclass(frozen=True)
class RatioStep:
    """New weights (System-1, System-2) and the benefits that led to them."""

    weights: tuple[float, float]
    benefit1: float
    benefit2: float


def benefits(bounds: Bounds, tokens: float, accuracy: float, *, clip: bool) -> tuple[float, float]:
    """(still too long, lost accuracy), each at least 0; `clip` also caps them at 1.

    ValueError if a gap of `bounds` has the wrong sign or a value is not a number of magnitude at most `LARGEST`.
    """
    _require_finite(tokens=tokens, accuracy=accuracy)
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
    _require_finite(gain1=gains[0], gain2=gains[1], eta=eta)
    if not (0.0 <= smoothing <= 1.0 and 0.0 <= floor <= 0.5):
        raise ValueError(f"smoothing must lie in [0, 1] and floor in [0, 0.5], not {smoothing!r} and {floor!r}")
    # Measured from the larger gain: equal gains then change nothing, however large, and nothing overflows.
    steps = [eta * (gain - max(gains)) for gain in gains]
    logits = [math.log(w) + step if w > 0.0 else -math.inf for w, step in zip(weights, steps, strict=True)]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    first = (1.0 - smoothing) * powers[0] / (powers[0] + powers[1]) + smoothing / 2.0
    first = min(max(first, floor), 1.0 - floor)
    return first, max(1.0 - first, floor)  # 1 - (1 - floor) can round to just below the floor


def next_ratio(
    controller: str,
    bounds: Bounds,
    tokens: float,
    accuracy: float,
    weights: tuple[float, float],
    *,
    eta: float,
    smoothing: float,
    floor: float,
    benefit_smoothing: float = 0.0,
    previous: tuple[float, float] | None = None,
) -> RatioStep:
    """One decision of the `paper` controller (as published) or the `robust` one.

    `robust` caps the benefits at 1, mixes in `benefit_smoothing` of the `previous` benefits, and keeps `floor` of each
    source; `paper` does none of the three. The step records the benefits after capping and mixing.
    """
    if controller not in ("paper", "robust"):
        raise ValueError(f"controller must be paper or robust, not {controller!r}")
    robust = controller == "robust"
    gains = benefits(bounds, tokens, accuracy, clip=robust)
    if robust and previous is not None:
        if not 0.0 <= benefit_smoothing < 1.0:
            raise ValueError(f"benefit_smoothing must lie in [0, 1), not {benefit_smoothing!r}")
        kept = benefit_smoothing
        gains = (kept * previous[0] + (1.0 - kept) * gains[0], kept * previous[1] + (1.0 - kept) * gains[1])
    moved = update(weights, gains, eta=eta, smoothing=smoothing, floor=floor if robust else 0.0)
    return RatioStep(moved, *gains)


def check_bounds(bounds: Bounds, errors: BoundErrors, num_errors: float) -> None:
    """ValueError unless both gaps have the right sign and exceed `num_errors` standard errors of their difference."""
    _require_finite(num_errors=num_errors)
    for name, unit in (("tokens", "tokens"), ("accuracy", "as a fraction")):
        long, short = getattr(bounds, f"long_{name}"), getattr(bounds, f"short_{name}")
        error = math.hypot(getattr(errors, f"long_{name}"), getattr(errors, f"short_{name}"))
        gap = long - short
        if gap <= 0.0:
            raise ValueError(f"long_{name} ({long:g}) must be larger than short_{name} ({short:g})")
        if gap <= num_errors * error:
            raise ValueError(
                f"long_{name} ({long:g}) and short_{name} ({short:g}) differ by {gap:g} ({unit}), which is within "
                f"{num_errors:g} standard errors ({error:g} each)"
            )


def scheduled_share(
    schedule: str, init: float, final: float, window: int, num_windows: int, seed: int, floor: float
) -> float:
    """System-1 share of `window` (0 to num_windows - 1) under a schedule that does not look at the control set."""
    if not 0 <= window < num_windows:
        raise ValueError(f"window must lie in 0 to {num_windows - 1}, not {window}")
    progress = window / max(1, num_windows - 1)
    if schedule == "static":
        return init
    if schedule == "linear":
        return init + (final - init) * progress
    if schedule == "cosine":
        return final + (init - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule == "random":
        return Random(f"ratio/{seed}/{window}").uniform(floor, 1.0 - floor)
    raise ValueError(f"schedule must be static, linear, cosine or random, not {schedule!r}")


def simulate(
    controller: str,
    bounds: Bounds,
    weights: tuple[float, float],
    tokens: Sequence[float],
    accuracy: Sequence[float],
    *,
    eta: float,
    smoothing: float,
    floor: float,
    benefit_smoothing: float = 0.0,
) -> list[RatioStep]:
    """The decisions along a given path of control measurements, one per (tokens, accuracy) pair."""
    steps: list[RatioStep] = []
    for mean_tokens, mean_accuracy in zip(tokens, accuracy, strict=True):
        last = steps[-1] if steps else None
        step = next_ratio(
            controller,
            bounds,
            mean_tokens,
            mean_accuracy,
            last.weights if last else weights,
            eta=eta,
            smoothing=smoothing,
            floor=floor,
            benefit_smoothing=benefit_smoothing,
            previous=(last.benefit1, last.benefit2) if last else None,
        )
        steps.append(step)
    return steps


def _require_finite(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and abs(value) <= LARGEST):
            raise ValueError(f"{name} must be a number of magnitude at most {LARGEST:g}, not {value!r}")


def _require_weights(weights: tuple[float, float]) -> None:
    if not (min(weights) >= 0.0 and abs(weights[0] + weights[1] - 1.0) <= 1e-9):
        raise ValueError(f"weights must be shares that sum to 1, not {weights!r}")
