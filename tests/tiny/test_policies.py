"""The vectorised simulation against the generator's own text, an independent path."""

from random import Random

import numpy as np
import pytest

from stages.tiny.chains import random_chain, solve, write_response
from stages.tiny.policies import fixed, frontier, named_policies, oracle, simulate


@pytest.fixture(scope="module")
def outcomes():
    return simulate(20_000, seed=1)


@pytest.mark.parametrize(("length", "checks"), [(1, 0), (4, 2), (8, 0), (8, 1), (8, 6)])
def test_the_simulation_agrees_with_written_traces(outcomes, length, checks):
    rng, trials = Random(length * 10 + checks), 3_000
    correct, tokens = [], []
    for _ in range(trials):
        chain = random_chain(length, rng)
        words, answer = write_response(chain, checks, rng)
        correct.append(answer == solve(chain))
        tokens.append(len(words) + 1)  # the end token
    error = 5 * np.sqrt(0.25 / trials) * max(0.2, np.std(correct) * 2) + 1e-3
    assert abs(np.mean(correct) - outcomes.accuracy[length - 1, checks]) < error
    assert np.mean(tokens) == pytest.approx(outcomes.tokens[length - 1, checks], rel=0.02)


def test_the_trade_off_that_the_task_was_built_for(outcomes):
    """The published figures of the design: indiscriminate shortening loses, checks on long chains are worth keeping."""
    by_name = {policy.name: policy for policy in named_policies(outcomes)}
    assert by_name["as generated"].accuracy == pytest.approx(0.990, abs=0.002)
    assert by_name["no checks"].accuracy == pytest.approx(0.959, abs=0.003)
    assert by_name["none up to length 4, one beyond"].accuracy == pytest.approx(0.991, abs=0.002)
    assert by_name["none up to length 4, one beyond"].reduction == pytest.approx(0.585, abs=0.015)
    assert by_name["half the checks, at random"].accuracy < by_name["as generated"].accuracy


def test_the_frontier_is_a_frontier(outcomes):
    hull = sorted(frontier(outcomes), key=lambda policy: policy.mean_tokens)
    accuracies = [policy.accuracy for policy in hull]
    assert accuracies == sorted(accuracies)
    best = oracle(outcomes)
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        policy = fixed(outcomes, [int(c) for c in rng.integers(0, 4, 8)], "random")
        assert policy.accuracy < best.accuracy or policy.mean_tokens >= best.mean_tokens
