"""Stage `ratio-schedule`: the references that the ratio is steered by, and where it starts.

Reads the frozen control set and artifacts/control.parquet, the base model's answers to it (stage `sample`); measures the long
bound (the base model) and the short bound (a short-CoT model, which answers here, or the base model's own shortest correct
answers), checks that they are far enough apart, and writes artifacts/schedule.json, artifacts/control_base.csv (per-question
control results), results/schedule.json and results/simulated_ratio.csv. Run: `tldr run ratio-schedule`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from stages._errors import StageFailed, UserError
from stages._io import folder_digest, write_csv, write_json
from stages._param_blocks import RatioParams
from stages._params import Params
from stages._provenance import place, provenance, write_provenance
from stages.core.ratio import BoundErrors, Bounds, Dual, check_bounds, scheduled_share, simulate
from stages.data.prompts import load_tokenizer
from stages.data.samples import AGAIN, check_keys, read_samples
from stages.engines.base import open_engine
from stages.engines.rollouts import make_requests
from stages.engines.weights import require_checkpoint
from stages.training.control import (
    Answer,
    ControlSet,
    Score,
    answer,
    control_set,
    require_resolution,
    score,
    standard_error,
)
from stages.training.screening import num_asked
from stages.verifier.grade import Grade, grade_all

KEYS = (
    *("seed", "model", "data.verifier", "decode", "container.engine", "container.device", "engine", "ratio", "select"),
    *("train.max_steps", "train.update_every"),
)


def main(root: Path, params: Params) -> None:
    control = control_set(root, params)
    answers = base_answers(root, params, control)
    long = score(answers)
    select = params.select
    require_resolution(long, params.ratio.control_samples, select.margin, select.alpha, select.power)
    bounds, errors = _bounds(root, params, control, long, answers)
    try:
        check_bounds(bounds, errors, params.ratio.num_errors)
    except ValueError as error:
        raise StageFailed(f"The ratio cannot be steered: {error}. {_bound_advice(params)}") from None
    eta = _steady_eta(params, long, bounds)
    trajectory = _simulated(params, bounds, eta, _loss_error(params, long))
    first_share = trajectory[0]["short_share"]
    schedule = {
        **control.hashes,
        "controller": params.ratio.controller,
        "schedule": params.ratio.schedule,
        "weights": {"system1": first_share, "system2": 1.0 - first_share},
        "eta": eta,
        "bounds": vars(bounds),
        "standard_errors": vars(errors),
        "simulated_short_share": [row["short_share"] for row in trajectory],
    }
    write_json(root / "artifacts" / "schedule.json", schedule)
    _write_control(root, control, long)
    write_json(root / "results" / "schedule.json", _metrics(long, bounds, errors, eta) | place(params))
    write_csv(root / "results" / "simulated_ratio.csv", trajectory)
    write_provenance(root, provenance(params, "ratio-schedule", KEYS, __file__), "ratio-schedule")


def base_answers(root: Path, params: Params, control: ControlSet) -> list[list[tuple[Answer, Grade]]]:
    """Graded answers of the base model, question by question in item order; UserError unless artifacts/control.parquet holds
    `ratio.bound_samples` answers of this model to each of these prompts."""
    path, model_path = root / "artifacts" / "control.parquet", root / params.model.path
    samples = read_samples(path, control.spec.digest, folder_digest(model_path))
    check_keys((sample.key for sample in samples), {"control": control.problems}, path.name)
    number, tokenizer = params.ratio.bound_samples, load_tokenizer(model_path)
    wanted = make_requests(tokenizer, control.problems, number)
    if [(s.problem_id, s.sample_index, tuple(s.prompt_ids)) for s in samples] != [
        (request.problem_id, request.sample_index, request.prompt_ids) for request in wanted
    ]:
        raise UserError(f"{path} holds other prompts than the control set, or not {number} answers to each; {AGAIN}.")
    golds = {problem.id: problem.gold for problem in control.problems}
    items = [(sample.text, sample.finish_reason, golds[sample.problem_id]) for sample in samples]
    graded: list[tuple[Answer, Grade]] = list(
        zip(samples, grade_all(items, control.verifier, processes=1), strict=True)
    )
    return [graded[i : i + number] for i in range(0, len(graded), number)]


def _short_model(params: Params, control: ControlSet, path: Path) -> Score:
    """What the short-CoT model scores, once the engine has shown that it serves exactly that model's weights."""
    with open_engine(params, path) as engine:
        require_checkpoint(engine, path, params.model.dtype)
        return score(answer(control, engine, path, params.ratio.bound_samples, params.seed, "short bound"))


def _bounds(
    root: Path, params: Params, control: ControlSet, long: Score, answers: list[list[tuple[Answer, Grade]]]
) -> tuple[Bounds, BoundErrors]:
    short = params.ratio.short_bound
    if short.source == "model":
        measured = _short_model(params, control, root / str(short.path))
        bounds = Bounds(measured.mean_tokens, long.mean_tokens, measured.accuracy, long.accuracy)
        return bounds, BoundErrors(
            measured.tokens_error, long.tokens_error, measured.accuracy_error, long.accuracy_error
        )
    lengths = shortest_correct(answers)
    if len(lengths) < 2:
        raise StageFailed(
            "The base model answers fewer than two control questions correctly, so no short bound can be estimated; "
            "use an easier control set or set ratio.short_bound.source to model."
        )
    bounds = Bounds(
        sum(lengths) / len(lengths), long.mean_tokens, long.accuracy - short.accuracy_tolerance, long.accuracy
    )
    # The tolerance is chosen, not measured: its gap carries no error of its own.
    return bounds, BoundErrors(standard_error(lengths), long.tokens_error, 0.0, 0.0)


def shortest_correct(answers: list[list[tuple[Answer, Grade]]]) -> list[float]:
    """Tokens of the shortest correct answer of every question that has one."""
    correct = [[float(r.num_tokens) for r, grade in question if grade.correct] for question in answers]
    return [min(lengths) for lengths in correct if lengths]


def _steady_eta(params: Params, long: Score, bounds: Bounds) -> float:
    """The step size: as requested, or lowered so that eta * SE(accuracy benefit) <= 0.5 if the control set is noisy."""
    ratio = params.ratio
    accuracy_error = _loss_error(params, long)
    gap = bounds.long_accuracy - bounds.short_accuracy
    if ratio.controller != "robust" or gap > 3.0 * accuracy_error:
        return ratio.eta
    if ratio.on_noisy_control == "error":
        raise StageFailed(
            f"The accuracy gap behind the second benefit ({gap:.4f}) is within 3 standard errors of the control accuracy "
            f"({accuracy_error:.4f} each): raise ratio.control_questions or ratio.control_samples, raise "
            "ratio.short_bound.accuracy_tolerance, or set ratio.on_noisy_control to lower_eta."
        )
    return min(ratio.eta, 0.5 * gap / accuracy_error)


def _loss_error(params: Params, long: Score) -> float:
    """Standard error of an update's control accuracy against the base model's, if the two answered independently."""
    num_questions, ratio = len(long.question_accuracy), params.ratio
    at_update = num_asked(params, num_questions) * ratio.control_samples
    shares = 1.0 / at_update + 1.0 / (num_questions * ratio.bound_samples)
    return math.sqrt(long.accuracy * (1.0 - long.accuracy) * shares)


def _bound_advice(params: Params) -> str:
    if params.ratio.short_bound.source == "model":
        return "Choose another ratio.short_bound.path, a larger control set, or ratio.short_bound.source self."
    return "Use a larger control set, more ratio.bound_samples, or a short-CoT model as ratio.short_bound.path."


def _simulated(params: Params, bounds: Bounds, eta: float, loss_error: float) -> list[dict[str, Any]]:
    """Short share per window if tokens and accuracy moved linearly from the long to the short bound."""
    ratio, train = params.ratio, params.train
    num_windows = train.max_steps // train.update_every
    steps = [window * train.update_every for window in range(num_windows)]
    if ratio.schedule != "dynamic":
        shares = [
            scheduled_share(ratio.schedule, ratio.init, ratio.final, window, num_windows, params.seed, ratio.floor)
            for window in range(num_windows)
        ]
        return _rows(ratio, bounds, steps, shares)
    way = [window / num_windows for window in range(1, num_windows)]
    tokens = [bounds.long_tokens + t * (bounds.short_tokens - bounds.long_tokens) for t in way]
    accuracy = [bounds.long_accuracy + t * (bounds.short_accuracy - bounds.long_accuracy) for t in way]
    moved = simulate(
        ratio.controller,
        bounds,
        (ratio.init, 1.0 - ratio.init),
        tokens,
        accuracy,
        eta=eta,
        smoothing=ratio.smoothing,
        floor=ratio.floor,
        benefit_smoothing=ratio.benefit_smoothing,
        loss_error=loss_error,
        dual=Dual(ratio.margin, ratio.dual_step, ratio.dead_zone),
    )
    shares = [ratio.init, *(step.weights[0] for step in moved)]
    return _rows(ratio, bounds, steps, shares)


def _rows(ratio: RatioParams, bounds: Bounds, steps: list[int], shares: list[float]) -> list[dict[str, Any]]:
    """With what bounds the share and the control tokens, so that DVC draws the trajectory between them."""
    lowest = ratio.floor if ratio.has_floor else 0.0
    limits = {"lowest_share": lowest, "highest_share": 1.0 - lowest}
    limits |= {"short_tokens": bounds.short_tokens, "long_tokens": bounds.long_tokens}
    return [{"step": step, "short_share": share, **limits} for step, share in zip(steps, shares, strict=True)]


def _write_control(root: Path, control: ControlSet, long: Score) -> None:
    columns = zip(control.problems, long.question_accuracy, long.question_tokens, strict=True)
    rows = [{"question_id": p.id, "accuracy": accuracy, "tokens": tokens} for p, accuracy, tokens in columns]
    write_csv(root / "artifacts" / "control_base.csv", rows)


def _metrics(long: Score, bounds: Bounds, errors: BoundErrors, eta: float) -> dict[str, Any]:
    return {
        "long_tokens": bounds.long_tokens,
        "long_tokens_se": errors.long_tokens,
        "short_tokens": bounds.short_tokens,
        "short_tokens_se": errors.short_tokens,
        "long_accuracy": bounds.long_accuracy,
        "long_accuracy_se": long.accuracy_error,
        "short_accuracy": bounds.short_accuracy,
        "eta": eta,
        "truncation_rate": long.truncation_rate,
    }
