"""A toy of training under a controller: the model lags behind the mixture, the control set is noisy, the loop is closed.

After each update the model moves 1 / `LAG` of the way to the share that it is trained on (an exponential average x), and

    tokens   = T_short + (T_long - T_short) (1 - 0.9 x)^1.5
    accuracy = A_long - drop * x^3 - offset

are measured on 512 questions, or as many as are asked, with 2 answers each; the long bound, once, on all with 4. Settings are
those of params.yaml, the step of `robust` as ratio-schedule would set it. The figures of docs/controllers.md:
`python -m tests.core.closed_loop`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from stages._params import check_params, load_params
from stages.core.ratio import Bounds, Dual, next_ratio
from stages.ratio_schedule import _steady_eta
from stages.training.control import Score
from tests.paths import ROOT

RATIO = load_params(ROOT).ratio
NUM_QUESTIONS, NUM_ANSWERS, NUM_REFERENCE_ANSWERS = 512, 2, 4
SPREAD = 0.8  # standard deviation of the tokens of an answer, as a share of their mean
LAG = 4
SEEDS = range(20)
NUM_UPDATES = 60


@dataclass(frozen=True)
class Response:
    """What mixtures do to the model; `margin` is one that the control set resolves at this accuracy."""

    bounds: Bounds
    drop: float
    margin: float
    offset: float = 0.0

    def tokens(self, learned: float) -> float:
        gap = self.bounds.long_tokens - self.bounds.short_tokens
        return self.bounds.short_tokens + gap * (1.0 - 0.9 * learned) ** 1.5

    def accuracy(self, learned: float) -> float:
        return self.bounds.long_accuracy - self.drop * learned**3 - self.offset


WIDE = Response(Bounds(1121.0, 7380.0, 0.29, 0.76), drop=0.3, margin=0.03)  # short bound: a short-CoT model
TIGHT = Response(Bounds(60.0, 162.0, 0.957, 0.987), drop=0.1, margin=0.01)  # short bound: a tolerance of 3 points
BRITTLE = Response(Bounds(60.0, 162.0, 0.957, 0.987), drop=0.4, margin=0.01)  # the same, and easy prompts do much harm
HARMLESS = Response(Bounds(60.0, 162.0, 0.957, 0.987), drop=0.0, margin=0.01)
RESPONSES = {"wide": WIDE, "tight": TIGHT, "brittle": BRITTLE}


class Run(NamedTuple):
    """One value per update: the share that was trained on, and the true accuracy after it."""

    shares: list[float]
    accuracy: list[float]


def run(
    controller: str,
    response: Response | Callable[[int], Response],
    seed: int | None,
    num: int = NUM_UPDATES,
    num_asked: int = NUM_QUESTIONS,
    **change: Any,
) -> Run:
    """Close the loop for `num` updates; without a seed there is no noise; `change` overrides settings of the controller."""
    at = response if callable(response) else lambda update: response
    noise = Random(seed).gauss if seed is not None else lambda mean, deviation: 0.0
    true = at(0).bounds
    gap = true.long_accuracy - true.short_accuracy
    reference_error = error(true.long_accuracy, NUM_REFERENCE_ANSWERS)
    reference = true.long_accuracy + noise(0.0, reference_error)
    bounds = Bounds(true.short_tokens, true.long_tokens, reference - gap, reference)
    share, learned, previous, result = RATIO.init, 0.0, None, Run([], [])
    for update in range(num):
        learned += (share - learned) / LAG
        tokens, accuracy = at(update).tokens(learned), at(update).accuracy(learned)
        result.shares.append(share)
        result.accuracy.append(accuracy)
        spread = SPREAD / math.sqrt(num_asked * NUM_ANSWERS)
        seen_tokens = tokens * (1.0 + noise(0.0, spread))
        at_update = error(accuracy, NUM_ANSWERS, num_asked)
        seen = min(max(accuracy + noise(0.0, at_update), 0.0), 1.0)
        loss_error = 0.0 if seed is None else math.hypot(at_update, reference_error)
        settings = settings_of(at(update).margin) | {"loss_error": loss_error, "previous": previous} | change
        step = next_ratio(controller, bounds, seen_tokens, seen, (share, 1.0 - share), **settings)
        share, previous = step.weights[0], (step.benefit1, step.benefit2)
    return result


def settings_of(margin: float) -> dict[str, Any]:
    """Those of params.yaml but for the margin, which is that of the response."""
    return {
        "eta": RATIO.eta,
        "smoothing": RATIO.smoothing,
        "floor": RATIO.floor,
        "benefit_smoothing": RATIO.benefit_smoothing,
        "dual": Dual(margin, RATIO.dual_step, RATIO.dead_zone),
    }


def with_part(response: Response) -> dict[str, Any]:
    """Changes for `robust` on a part of 32 questions: the step is what ratio-schedule would make of it."""
    document = load_params(ROOT).model_dump()
    document["ratio"] |= {"control_questions": 32, "on_noisy_control": "lower_eta"}
    accuracy = response.bounds.long_accuracy
    long = Score((accuracy,) * NUM_QUESTIONS, (response.bounds.long_tokens,) * NUM_QUESTIONS, 0.0)
    return {"num_asked": 32, "eta": _steady_eta(check_params(document, "params.yaml"), long, response.bounds)}


def error(accuracy: float, num_answers: int, num_questions: int = NUM_QUESTIONS) -> float:
    return math.sqrt(accuracy * (1.0 - accuracy) / (num_questions * num_answers))


def moving_average(shares: Sequence[float]) -> list[float]:
    """Over the last 5 updates."""
    return [statistics.fmean(shares[max(0, last - 4) : last + 1]) for last in range(len(shares))]


def swing(shares: Sequence[float]) -> float:
    """Highest minus lowest moving average in the last half."""
    late = moving_average(shares)[len(shares) // 2 :]
    return max(late) - min(late)


def reach(shares: Sequence[float]) -> float:
    return max(shares[20:]) - min(shares[20:])


def sustained_period(runs: Sequence[Sequence[float]]) -> float:
    """Height of the highest peak of the autocorrelation of the last halves beyond its first negative value, as a mean over
    seeds: what is left of a cycle is common to them, what noise makes is not. 0 where there is none."""
    late = [shares[len(shares) // 2 :] for shares in runs]
    mean = [statistics.fmean(autocorrelation(shares, lag) for shares in late) for lag in range(20)]
    first = next((lag for lag, value in enumerate(mean) if value < 0.0), len(mean))
    return max([0.0, *mean[first:]])


def autocorrelation(values: Sequence[float], lag: int) -> float:
    mean = statistics.fmean(values)
    deviations = [value - mean for value in values]
    total = math.fsum(deviation**2 for deviation in deviations)
    if total < 1e-12:
        return 0.0
    return math.fsum(a * b for a, b in zip(deviations, deviations[lag:], strict=False)) / total


def shocked(response: Response, offset: float, first: int, last: int) -> Callable[[int], Response]:
    """`response`, with `offset` less accuracy from update `first` to before `last`."""
    harmed = Response(response.bounds, response.drop, response.margin, offset)
    return lambda update: harmed if first <= update < last else response


def updates_to_recover(controller: str, response: Response, seed: int, **change: Any) -> int:
    """Updates after a shock (5 points for 5 updates) until the moving average is, for 3 updates, within .1 of that of the
    same run without the shock; 50 if it never is."""
    first, last = 30, 35
    calm = moving_average(run(controller, response, seed, last + 53, **change).shares)
    after = moving_average(run(controller, shocked(response, 0.05, first, last), seed, last + 53, **change).shares)
    near = [abs(a - b) < 0.1 for a, b in zip(calm, after, strict=True)]
    return next((wait for wait in range(50) if all(near[last + wait : last + wait + 3])), 50)


class Figures(NamedTuple):
    """Means over seeds, but `recovery`: the median. `reach` is highest minus lowest share after update 20, `onehot` the
    part of all updates in which one source has less than 5 %."""

    reach: float
    swing: float
    period: float
    onehot: float
    loss: float
    recovery: float


def figures(controller: str, response: Response, **change: Any) -> Figures:
    runs = [run(controller, response, seed, **change) for seed in SEEDS]
    shares = [done.shares for done in runs]
    late = [accuracy for done in runs for accuracy in done.accuracy[NUM_UPDATES // 2 :]]
    return Figures(
        statistics.fmean(map(reach, shares)),
        statistics.fmean(map(swing, shares)),
        sustained_period(shares),
        statistics.fmean(min(share, 1.0 - share) < 0.05 for path in shares for share in path),
        response.bounds.long_accuracy - statistics.fmean(late),
        statistics.median(updates_to_recover(controller, response, seed, **change) for seed in SEEDS),
    )


def table() -> str:
    """The table of docs/controllers.md, in Markdown."""
    lines = [
        "| response | controller | reach | swing | period | one-hot | accuracy lost | updates to recover |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, response in RESPONSES.items():
        rows: list[tuple[str, str, dict[str, Any]]] = [
            ("paper", "paper", {}),
            ("robust", "robust", {}),
            ("robust, `benefit_smoothing` 0", "robust", {"benefit_smoothing": 0.0}),
            ("robust, 32 questions", "robust", with_part(response)),
            ("lagrangian", "lagrangian", {}),
        ]
        for label, controller, change in rows:
            found = figures(controller, response, **change)
            lines.append(
                f"| {name} | {label} | {found.reach:.2f} | {found.swing:.2f} | {found.period:.2f} "
                f"| {100 * found.onehot:.0f} % | {100 * found.loss:.1f} points | {found.recovery:g} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
