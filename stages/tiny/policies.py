"""Checking policies of the tiny task, simulated: what each costs in tokens and accuracy, and the best trade-off there is.

A policy says how many checks follow the first pass at each chain length. Everything is drawn from the rules in
`stages.tiny.chains`, without a model, so the frontier is what a perfectly compressed reasoner could reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.tiny.chains import MAX_CHECKS, MAX_LENGTH, MODULUS, STEP_ERROR

TOKENS_PER_STEP = 7  # a 9 + 8 = 6 ;
AGREED_TOKENS = 7  # wait check 2 : ... was 2 ok
DISAGREED_TOKENS = 9  # wait check 2 : ... was 2 no again : ...
CLOSING_TOKENS = 5  # . </think> answer 2 <eos>


@dataclass(frozen=True)
class Outcomes:
    """`accuracy[l - 1, r]` and `tokens[l - 1, r]`: means over chains of length l answered with exactly r checks."""

    accuracy: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Policy:
    """Means over lengths 1 to 8; `reduction` is 1 - tokens / tokens as generated."""

    name: str
    accuracy: float
    mean_tokens: float
    reduction: float


def pass_errors(length: int, factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Offset of a pass's result from the truth, modulo 11, shape (chains,); `factors` (chains, length) carry an offset on."""
    offset = np.zeros(len(factors), dtype=np.int64)
    for step in range(length):
        wrong = rng.random(len(factors)) < STEP_ERROR[step]
        offset = offset * factors[:, step] + wrong * rng.integers(1, MODULUS, len(factors))
    return offset % MODULUS


def simulate(num_chains: int, seed: int) -> Outcomes:
    """Outcomes of every (length, number of checks) from `num_chains` random chains per length."""
    rng = np.random.default_rng(seed)
    accuracy = np.empty((MAX_LENGTH, MAX_CHECKS + 1))
    tokens = np.empty((MAX_LENGTH, MAX_CHECKS + 1))
    for length in range(1, MAX_LENGTH + 1):
        is_product = rng.random((num_chains, length)) < 1 / 3
        factors = np.where(is_product, rng.integers(1, MODULUS, (num_chains, length)), 1)
        current = pass_errors(length, factors, rng)
        used = np.full(num_chains, TOKENS_PER_STEP * length + CLOSING_TOKENS)
        for checks in range(MAX_CHECKS + 1):
            if checks:
                agreed = pass_errors(length, factors, rng) == current
                current = np.where(agreed, current, pass_errors(length, factors, rng))
                used = used + np.where(
                    agreed,
                    TOKENS_PER_STEP * length + AGREED_TOKENS,
                    2 * TOKENS_PER_STEP * length + DISAGREED_TOKENS,
                )
            accuracy[length - 1, checks] = (current == 0).mean()
            tokens[length - 1, checks] = used.mean()
    return Outcomes(accuracy, tokens)


def mixture(outcomes: Outcomes, weights: np.ndarray, name: str) -> Policy:
    """The policy that makes r checks at length l with probability `weights[l - 1, r]`."""
    accuracy = float((outcomes.accuracy * weights).sum(axis=1).mean())
    mean_tokens = float((outcomes.tokens * weights).sum(axis=1).mean())
    return Policy(name, accuracy, mean_tokens, 1.0 - mean_tokens / float(outcomes.tokens.mean()))


def fixed(outcomes: Outcomes, checks: list[int], name: str) -> Policy:
    """The policy that always makes `checks[l - 1]` checks at length l."""
    return mixture(outcomes, np.eye(MAX_CHECKS + 1)[checks], name)


def named_policies(outcomes: Outcomes) -> list[Policy]:
    """The policies that frame the task, from as generated to the ones that give up checks in different places."""
    uniform = np.full((MAX_LENGTH, MAX_CHECKS + 1), 1.0 / (MAX_CHECKS + 1))
    keep = np.zeros(MAX_CHECKS + 1)
    for made in range(MAX_CHECKS + 1):
        for kept in range(made + 1):
            keep[kept] += _binomial(made, kept) / (MAX_CHECKS + 1)
    return [
        mixture(outcomes, uniform, "as generated"),
        mixture(outcomes, np.tile(keep, (MAX_LENGTH, 1)), "half the checks, at random"),
        fixed(outcomes, [0] * 8, "no checks"),
        fixed(outcomes, [1] * 8, "one check"),
        fixed(outcomes, [0] * 4 + [1] * 4, "none up to length 4, one beyond"),
        fixed(outcomes, [0] * 4 + [2] * 4, "none up to length 4, two beyond"),
    ]


def _binomial(trials: int, successes: int) -> float:
    from math import comb

    return comb(trials, successes) / 2.0**trials


def frontier(outcomes: Outcomes) -> list[Policy]:
    """The lower convex hull of (tokens, accuracy) over all ways to fix the checks per length, fewest tokens first."""
    hull: dict[tuple[int, ...], Policy] = {}
    for price in np.concatenate([[0.0], np.geomspace(1.0, 1e6, 400)]):
        best = (outcomes.tokens - price * outcomes.accuracy).argmin(axis=1)
        checks = tuple(int(c) for c in best)
        if checks not in hull:
            hull[checks] = fixed(outcomes, list(checks), " ".join(map(str, checks)))
    return list(hull.values())


def oracle(outcomes: Outcomes) -> Policy:
    """The cheapest frontier policy whose accuracy is at least that of the traces as generated."""
    target = named_policies(outcomes)[0].accuracy
    return min((p for p in frontier(outcomes) if p.accuracy >= target), key=lambda p: p.mean_tokens)
