"""How close the shipped model comes to the generator of its training traces, per chain length.

Reads a model folder; draws fresh chains with the model and simulates the generator on the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from stages._params import Params
from stages.data.problems import Problem
from stages.data.prompts import load_tokenizer
from stages.engines.base import decode_spec, open_engine
from stages.engines.progress import track
from stages.engines.rollouts import make_requests
from stages.tiny.chains import MAX_LENGTH, prompt_text, random_chain, solve
from stages.tiny.policies import simulate
from stages.training.control import grade_responses


@dataclass(frozen=True)
class Fidelity:
    """Means at one chain length; tokens per answer."""

    length: int
    accuracy: float
    generator_accuracy: float
    mean_tokens: float
    generator_tokens: float


def compare_with_generator(root: Path, params: Params, chains_per_length: int, seed: int) -> list[Fidelity]:
    """One row per length 1 to 8 from one answer to each of `chains_per_length` chains, decoded as params.yaml says."""
    rng = Random(f"fidelity/{seed}")
    chains = [random_chain(length, rng) for length in range(1, MAX_LENGTH + 1) for _ in range(chains_per_length)]
    problems = [Problem(f"f{i}", prompt_text(c), str(solve(c)), None, None) for i, c in enumerate(chains)]
    model_path = root / params.model.path
    tokenizer = load_tokenizer(model_path)
    requests = make_requests(tokenizer, problems, 1)
    with open_engine(params, model_path) as engine:
        drawn = list(track(engine.generate(requests, decode_spec(params), seed), len(requests), "fidelity"))
    golds = {problem.id: problem.gold for problem in problems}
    graded = grade_responses(sorted(drawn, key=lambda r: int(r.problem_id[1:])), golds, tokenizer, "exact")
    outcomes = simulate(60_000, seed)
    rows = []
    for index in range(MAX_LENGTH):
        mine = graded[index * chains_per_length : (index + 1) * chains_per_length]
        rows.append(
            Fidelity(
                index + 1,
                sum(grade.correct for _, grade in mine) / len(mine),
                float(outcomes.accuracy[index].mean()),
                sum(response.num_tokens for response, _ in mine) / len(mine),
                float(outcomes.tokens[index].mean()),
            )
        )
    return rows


def overall(rows: Sequence[Fidelity]) -> Fidelity:
    """The mean over lengths, as length 0."""
    names = ("accuracy", "generator_accuracy", "mean_tokens", "generator_tokens")
    return Fidelity(0, *(sum(getattr(row, name) for row in rows) / len(rows) for name in names))


def fidelity_table(rows: Sequence[Fidelity]) -> str:
    """A Markdown table, one row per length and one for the mean."""
    lines = [
        "| length | model accuracy | generator accuracy | model tokens | generator tokens |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in [*rows, overall(rows)]:
        name = str(row.length) if row.length else "mean"
        lines.append(
            f"| {name} | {row.accuracy:.3f} | {row.generator_accuracy:.3f} "
            f"| {row.mean_tokens:.1f} | {row.generator_tokens:.1f} |"
        )
    return "\n".join(lines)
