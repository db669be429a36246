"""The control set: frozen items, one decode specification, and what a model scores on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stages._errors import StageFailed
from stages._io import digest
from stages._params import Params
from stages.core.answers import is_cut
from stages.data.problems import Problem, read_problems
from stages.data.prompts import decode_text, load_tokenizer
from stages.engines.base import DecodeSpec, Engine, Response, decode_spec
from stages.engines.progress import track
from stages.engines.rollouts import make_requests
from stages.verifier.grade import Grade, grade_all


@dataclass(frozen=True)
class ControlSet:
    """Items and decode specification; `hashes` must be equal wherever two measurements are compared."""

    problems: tuple[Problem, ...]
    spec: DecodeSpec
    verifier: str

    @property
    def hashes(self) -> dict[str, str]:
        items = [[problem.id, problem.prompt, problem.gold] for problem in self.problems]
        return {"decode_hash": self.spec.digest, "items_hash": digest([items, self.verifier])}


@dataclass(frozen=True)
class Score:
    """Question means over the control set, with question-clustered standard errors; tokens per answer."""

    question_accuracy: tuple[float, ...]
    question_tokens: tuple[float, ...]
    truncation_rate: float

    @property
    def accuracy(self) -> float:
        return _mean(self.question_accuracy)

    @property
    def accuracy_error(self) -> float:
        return standard_error(self.question_accuracy)

    @property
    def mean_tokens(self) -> float:
        return _mean(self.question_tokens)

    @property
    def tokens_error(self) -> float:
        return standard_error(self.question_tokens)

    def row(self) -> dict[str, Any]:
        """For a log of JSON lines."""
        return {
            "question_accuracy": list(self.question_accuracy),
            "question_tokens": list(self.question_tokens),
            "truncation_rate": self.truncation_rate,
        }


def scores(rows: Sequence[dict[str, Any]]) -> list[tuple[int, Score]]:
    """(step, score) of every row of a log."""
    return [
        (row["step"], Score(tuple(row["question_accuracy"]), tuple(row["question_tokens"]), row["truncation_rate"]))
        for row in rows
    ]


def control_set(root: Path, params: Params) -> ControlSet:
    problems = tuple(read_problems(root / params.data.control.path))
    return ControlSet(problems, decode_spec(params), params.data.verifier)


def answer(
    control: ControlSet,
    engine: Engine,
    model_path: Path,
    num_samples: int,
    seed: int,
    title: str,
    first_sample: int = 0,
) -> list[list[tuple[Response, Grade]]]:
    """Graded answers, one list of `num_samples` per question, in item order; sample indices begin with `first_sample`.

    Not resumable on purpose: a half-repeated evaluation would be batched differently, round differently, and could
    move the ratio, and then a resumed run would not end with the weights of an uninterrupted one.
    """
    tokenizer = load_tokenizer(model_path)
    requests = make_requests(tokenizer, control.problems, num_samples, first_sample)
    drawn = {
        (r.problem_id, r.sample_index): r
        for r in track(engine.generate(requests, control.spec, seed), len(requests), title)
    }
    responses = [drawn[r.problem_id, r.sample_index] for r in requests]
    golds = {problem.id: problem.gold for problem in control.problems}
    graded = grade_responses(responses, golds, tokenizer, control.verifier)
    return [graded[i : i + num_samples] for i in range(0, len(graded), num_samples)]


def grade_responses(
    responses: Sequence[Response], golds: dict[str, str], tokenizer: Any, verifier: str
) -> list[tuple[Response, Grade]]:
    items = [(decode_text(tokenizer, r.token_ids), r.finish_reason, golds[r.problem_id]) for r in responses]
    return list(zip(responses, grade_all(items, verifier, processes=1), strict=True))


class Answer(Protocol):
    """What a score needs of an answer: a Response, or a Sample that was stored."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def finish_reason(self) -> str: ...


def score(answers: Sequence[Sequence[tuple[Answer, Grade]]]) -> Score:
    every = [response for question in answers for response, _ in question]
    return Score(
        tuple(_mean([float(grade.correct) for _, grade in question]) for question in answers),
        tuple(_mean([float(response.num_tokens) for response, _ in question]) for question in answers),
        _mean([float(is_cut(response.finish_reason)) for response in every]),
    )


def require_resolution(control: Score, num_samples: int, margin: float, alpha: float, power: float) -> None:
    """StageFailed unless the control set can show non-inferiority at `margin` with `power`, were nothing lost.

    The paired standard error is predicted from the base accuracy A as sqrt(2 A (1 - A) / (questions * samples)),
    with A kept one half answer away from 0 and 1.
    """
    from statistics import NormalDist

    num_questions = len(control.question_accuracy)
    error = math.sqrt(2.0) * binomial_error(control.accuracy, num_questions * num_samples)
    normal = NormalDist()
    needed_errors = normal.inv_cdf(1.0 - alpha) + normal.inv_cdf(power)
    if needed_errors * error > margin:
        wanted = math.ceil((needed_errors * error / margin) ** 2 * num_questions)
        raise StageFailed(
            f"The control set ({num_questions} questions x {num_samples} answers, accuracy {control.accuracy:.3f}) cannot "
            f"show non-inferiority at select.margin = {margin} with power {power}: use at least {wanted} questions, raise "
            f"ratio.control_samples, or widen select.margin to {needed_errors * error:.4f}."
        )


def binomial_error(accuracy: float, num_answers: int) -> float:
    """Standard error of the accuracy of so many answers, were all questions alike; at least half an answer is taken to be wrong
    and half a one right, since few answers may be all alike by luck."""
    half = 0.5 / num_answers
    likely = min(max(accuracy, half), 1.0 - half)
    return math.sqrt(likely * (1.0 - likely) / num_answers)


def loss_error(base: Score, measured: Score) -> float:
    """Standard error of the difference of the two accuracies, paired by question."""
    pairs = zip(base.question_accuracy, measured.question_accuracy, strict=True)
    return standard_error([after - before for before, after in pairs])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float:
    """sd / sqrt(n) with n - 1 in the variance; infinite for a single value."""
    if len(values) < 2:
        return math.inf
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
