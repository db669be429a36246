"""What one control evaluation decides: the System-1 share of the next window, and the row that records why. No files."""

from __future__ import annotations

from typing import Any

from stages._param_blocks import RatioParams
from stages._params import Params
from stages.core.ratio import Bounds, Dual, RatioStep, benefit_errors, next_ratio, scheduled_share
from stages.training.screening import Estimate


def shares_so_far(schedule: dict[str, Any], rows: list[dict[str, Any]]) -> list[float]:
    """System-1 share of every window of `rows`, and of the next one."""
    return [schedule["weights"]["system1"], *(row["next_short_share"] for row in rows)]


def decide(
    params: Params,
    schedule: dict[str, Any],
    rows: list[dict[str, Any]],
    step: int,
    measured: Estimate,
) -> dict[str, Any]:
    """The row of this control evaluation, with the share of the next window.

    A row holds all that the next decision needs, so a resumed run decides alike: share and benefits. `multiplier` is in
    the rows of the lagrangian controller only.
    """
    share = shares_so_far(schedule, rows)[-1]
    bounds = Bounds(**schedule["bounds"])
    moved = _moved(params.ratio, schedule["eta"], bounds, share, rows, measured)
    dual, loss_error = _dual(params.ratio), measured.loss_error
    errors = benefit_errors(bounds, measured.tokens_error, measured.accuracy_error, loss_error, dual)
    row = {
        "step": step,
        "short_share": share,
        "next_short_share": _next_share(params, len(rows) + 1, moved.weights[0]),
        "mean_tokens": measured.mean_tokens,
        "mean_tokens_se": measured.tokens_error,
        "accuracy": measured.accuracy,
        "accuracy_se": measured.accuracy_error,
        "truncation_rate": measured.truncation_rate,
        "benefit1": moved.benefit1,
        "benefit1_se": errors[0],
        "benefit2": moved.benefit2,
        "benefit2_se": errors[1],
    }
    return row if moved.multiplier is None else row | {"multiplier": moved.multiplier}


def _moved(
    ratio: RatioParams,
    eta: float,
    bounds: Bounds,
    share: float,
    rows: list[dict[str, Any]],
    measured: Estimate,
) -> RatioStep:
    last = rows[-1] if rows else None
    return next_ratio(
        ratio.controller,
        bounds,
        measured.mean_tokens,
        measured.accuracy,
        (share, 1.0 - share),
        eta=eta,
        smoothing=ratio.smoothing,
        floor=ratio.floor,
        benefit_smoothing=ratio.benefit_smoothing,
        previous=None if last is None else (last["benefit1"], last["benefit2"]),
        loss_error=measured.loss_error,
        dual=_dual(ratio),
    )


def _dual(ratio: RatioParams) -> Dual | None:
    return Dual(ratio.margin, ratio.dual_step, ratio.dead_zone) if ratio.controller == "lagrangian" else None


def _next_share(params: Params, window: int, steered: float) -> float:
    ratio = params.ratio
    if ratio.schedule == "dynamic":
        return steered
    num_windows = params.train.max_steps // params.train.update_every
    window = min(window, num_windows - 1)
    return scheduled_share(ratio.schedule, ratio.init, ratio.final, window, num_windows, params.seed, ratio.floor)
