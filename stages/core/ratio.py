"""How the System-1 / System-2 ratio moves: one interface to the controllers, and the schedules without one.

Weights are (System-1, System-2) sampling shares, by examples or by response tokens (train.unit). Tokens are mean output
tokens per answer, accuracies are fractions. Everything is numbers in, numbers out; the controllers are in
`stages.core.controllers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from stages.core.bounds import BoundErrors, Bounds, check_bounds
from stages.core.controllers import Dual, RatioStep, benefit_errors, benefits, lagrangian, paper, robust, update

__all__ = [
    "BoundErrors",
    "Bounds",
    "Dual",
    "RatioStep",
    "benefit_errors",
    "benefits",
    "check_bounds",
    "next_ratio",
    "scheduled_share",
    "simulate",
    "update",
]


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
    loss_error: float | None = None,
    dual: Dual | None = None,
) -> RatioStep:
    """One decision: `paper` as published, `robust` (capped, smoothed, with a floor), `lagrangian` (accuracy constrained).

    `robust` alone reads `benefit_smoothing` and the `previous` benefits; `lagrangian` reads `floor`, `dual` and
    `loss_error`, the standard error of accuracy - long_accuracy, and neither `eta` nor `smoothing`. ValueError, naming
    the value, for anything that makes no ratio.
    """
    measured = (bounds, tokens, accuracy, weights)
    if controller == "paper":
        return paper(*measured, eta=eta, smoothing=smoothing)
    if controller == "robust":
        return robust(
            *measured,
            eta=eta,
            smoothing=smoothing,
            floor=floor,
            benefit_smoothing=benefit_smoothing,
            previous=previous,
        )
    if controller != "lagrangian":
        raise ValueError(f"controller must be paper or robust or lagrangian, not {controller!r}")
    if loss_error is None or dual is None:
        raise ValueError("lagrangian needs its settings `dual` and `loss_error`, the standard error of the loss")
    return lagrangian(*measured, floor=floor, loss_error=loss_error, dual=dual)


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
    loss_error: float | None = None,
    dual: Dual | None = None,
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
            loss_error=loss_error,
            dual=dual,
        )
        steps.append(step)
    return steps
