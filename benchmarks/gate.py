"""How often the gate passes and fails where the truth is known: simulated benchmarks with several samples per question.

Prints the table of docs/gate.md; tests/evidence/test_gate_calibration.py repeats it at a smaller size. Run:
`python -m benchmarks.gate` (a few minutes on 2 cores).
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.evidence.estimates import QuestionTable
from stages.evidence.gate import decide
from stages.evidence.policy import Policy, check_policy
from stages.evidence.summary import compare

NUM, SAMPLES = 200, 4


def policy(margin: float, minimum: float | None) -> Policy:
    limits = {"min_token_reduction": minimum, "max_truncation_rate": 0.05, "max_no_think_rate": None}
    return check_policy(
        {
            "schema_version": 1,
            "alpha": 0.05,
            "confidence": 0.95,
            "resamples": 1000,
            "seed": 1,
            "defaults": {"tier": "critical", "accuracy_margin": margin, **limits},
            "benchmarks": None,
        }
    )


def table(accuracy: NDArray[np.float64], tokens: NDArray[np.float64], rng: np.random.Generator) -> QuestionTable:
    """Answers to questions with these chances and mean lengths; lengths vary by a third between samples."""
    num = accuracy.size
    lengths = tokens[:, None] * rng.lognormal(0, 0.33, (num, SAMPLES))
    correct = rng.random((num, SAMPLES)) < accuracy[:, None]
    cut = ~correct & (rng.random((num, SAMPLES)) < 0.05)
    ids = tuple(str(i) for i in range(num))
    return QuestionTable("toy", ids, ("",) * num, correct, lengths.astype(np.int64) + 1, cut, cut)


def verdicts(rules: Policy, loss: float, growth: float, benchmarks: int, draws: int, seed: int) -> list[str]:
    """The gate's verdicts over simulated runs, in which every benchmark lost `loss` and grew by the factor `growth`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        reports, candidates = {}, {}
        for name in map(str, range(benchmarks)):
            chances, lengths = rng.beta(4, 1, NUM), rng.lognormal(5, 0.7, NUM)
            before = table(chances, lengths, rng)
            candidates[name] = table(chances * (1 - loss / 0.8), lengths * growth, rng)
            reports[name] = compare(
                {"toy": before},
                {"toy": candidates[name]},
                margin=rules.defaults.accuracy_margin,
                alpha=rules.alpha,
                confidence=rules.confidence,
                resamples=rules.resamples,
                seed=1,
            )
        found.append(decide(reports, candidates, rules)["verdict"])
    return found


class Truth(NamedTuple):
    """What every benchmark lost, how many there are, and what the policy allows; `draws` simulated runs."""

    title: str
    loss: float
    minimum: float | None
    benchmarks: int
    draws: int


TRUTHS = (
    Truth("every benchmark loses exactly the margin", 0.03, None, 1, 800),
    Truth("every benchmark loses exactly the margin", 0.03, None, 7, 500),
    Truth("nothing changed, 5 % longer allowed", 0.0, -0.05, 1, 800),
    Truth("nothing changed, 5 % longer allowed", 0.0, -0.05, 7, 150),
    Truth("nothing changed, no token more allowed", 0.0, 0.0, 7, 500),
)


def row(truth: Truth) -> str:
    """One line of the table."""
    found = verdicts(policy(0.03, truth.minimum), truth.loss, 1.0, truth.benchmarks, truth.draws, seed=1)
    shares = [f"{100 * found.count(verdict) / truth.draws:.1f} %" for verdict in ("FAIL", "PASS")]
    return f"| {truth.title} | {truth.benchmarks} | {truth.draws} | {' | '.join(shares)} |"


def main() -> None:
    print("| truth | benchmarks | runs | FAIL | PASS |")
    print("|---|---:|---:|---:|---:|")
    with ProcessPoolExecutor(2) as pool:
        for line in pool.map(row, TRUTHS):
            print(line, flush=True)


if __name__ == "__main__":
    main()
