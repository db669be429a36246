"""The controllers in a closed loop with a toy of training (tests/core/closed_loop.py), over 20 seeds of control noise.

What `paper` does wrong is asserted too: it is why the others exist, and docs/controllers.md says so with these figures.
"""

from __future__ import annotations

import re
import statistics

import pytest

from tests.core.closed_loop import (
    BRITTLE,
    HARMLESS,
    NUM_UPDATES,
    RATIO,
    RESPONSES,
    SEEDS,
    Response,
    reach,
    run,
    shocked,
    sustained_period,
    swing,
    table,
    updates_to_recover,
    with_part,
)
from tests.paths import ROOT

LOWEST, HIGHEST = RATIO.floor, 1.0 - RATIO.floor
every_response = pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)


def paths(controller: str, response: Response, **change: object) -> list[list[float]]:
    return [run(controller, response, seed, **change).shares for seed in SEEDS]


def leaves(shares: list[float], start: int, low: float, high: float) -> int:
    """Updates after `start` until the share lies between `low` and `high`; as many as there are if never."""
    after = shares[start:]
    return next((wait for wait, share in enumerate(after) if low < share < high), len(after))


@every_response
def test_lagrangian_settles_at_the_constraint_without_noise(response: Response) -> None:
    done = run("lagrangian", response, None, num=200)
    assert max(done.shares[100:]) - min(done.shares[100:]) < 1e-3
    assert LOWEST < done.shares[-1] < HIGHEST
    assert response.bounds.long_accuracy - done.accuracy[-1] == pytest.approx(response.margin, abs=1e-5)


@every_response
def test_lagrangian_has_no_limit_cycle(response: Response) -> None:
    shares = paths("lagrangian", response)
    assert max(map(swing, shares)) < 0.25
    assert statistics.fmean(map(swing, shares)) < 0.15
    assert sustained_period(shares) < 0.15
    without_noise = run("lagrangian", response, None).shares[NUM_UPDATES // 2 :]
    assert max(without_noise) - min(without_noise) < 0.03


@every_response
def test_lagrangian_keeps_the_constraint_on_average_under_noise(response: Response) -> None:
    late = [run("lagrangian", response, seed).accuracy[NUM_UPDATES // 2 :] for seed in SEEDS]
    lost = response.bounds.long_accuracy - statistics.fmean(map(statistics.fmean, late))
    assert 0.5 * response.margin < lost < 1.02 * response.margin


@every_response
def test_lagrangian_recovers_after_a_shock(response: Response) -> None:
    waits = [updates_to_recover("lagrangian", response, seed) for seed in SEEDS]
    assert max(waits) <= 25
    assert statistics.median(waits) <= 12


@pytest.mark.parametrize("controller", ["robust", "lagrangian"])
def test_no_lock_in_at_the_floor_or_the_ceiling(controller: str) -> None:
    """Harm that ends, and harm that begins, after the share has long been at its bound."""
    reached = []
    for seed in SEEDS:
        floored = run(controller, shocked(BRITTLE, 0.08, 5, 30), seed).shares
        assert min(floored) >= LOWEST and floored[29] < LOWEST + 0.02
        assert leaves(floored, 30, LOWEST + 0.05, HIGHEST) <= 12
        ceiled = run(controller, lambda update: HARMLESS if update < 30 else BRITTLE, seed).shares
        assert max(ceiled) <= HIGHEST
        assert leaves(ceiled, 30, LOWEST, 0.5) <= 12
        reached.append(max(ceiled[20:31]))
    assert statistics.median(reached) > HIGHEST - 0.05


def test_robust_cycles_with_the_benefit_smoothing_of_params_yaml_and_not_without() -> None:
    """A weakness where all questions are asked: the average of the benefits lags, and at eta 4 that sustains a cycle."""
    assert (RATIO.eta, RATIO.benefit_smoothing) == (4.0, 0.5)
    for name in ("tight", "brittle"):
        response = RESPONSES[name]
        for smoothing, cycles in ((0.5, True), (0.0, False)):
            late = run("robust", response, None, benefit_smoothing=smoothing).shares[NUM_UPDATES // 2 :]
            assert (max(late) - min(late) > 0.5) is cycles
            period = sustained_period(paths("robust", response, benefit_smoothing=smoothing))
            assert (period > 0.4) is cycles


@every_response
def test_robust_without_benefit_smoothing_swings_less_and_recovers(response: Response) -> None:
    change = {"benefit_smoothing": 0.0}
    assert statistics.fmean(map(swing, paths("robust", response, **change))) < 0.3
    assert max(updates_to_recover("robust", response, seed, **change) for seed in SEEDS) <= 25


@pytest.mark.parametrize("name", ["tight", "brittle"])
def test_the_smaller_step_of_the_default_lets_the_cycle_of_robust_die_out(name: str) -> None:
    response = RESPONSES[name]
    assert RATIO.control_questions == 32
    assert with_part(response)["eta"] < 0.3 * RATIO.eta
    for change, dies_out in ((with_part(response), True), ({}, False)):
        shares = run("robust", response, None, num=240, **change).shares
        early, late = (max(part) - min(part) for part in (shares[20:60], shares[200:]))
        assert (late < 0.3 * early) is dies_out


@every_response
def test_robust_on_a_part_of_the_set_is_not_locked_in_and_recovers(response: Response) -> None:
    change = with_part(response)
    shares = paths("robust", response, **change)
    assert min(map(min, shares)) >= LOWEST and max(map(max, shares)) <= HIGHEST
    assert statistics.median(updates_to_recover("robust", response, seed, **change) for seed in SEEDS) <= 20
    for path in shares:
        assert any(LOWEST + 0.05 < share < HIGHEST - 0.05 for share in path[NUM_UPDATES // 2 :])


@pytest.mark.parametrize("name", ["tight", "brittle"])
def test_paper_goes_one_hot_and_swings(name: str) -> None:
    """With a gap of 3 points the noise alone sends it from one source to the other and back, in every seed."""
    shares = paths("paper", RESPONSES[name])
    assert min(map(reach, shares)) > 0.6
    assert statistics.fmean(map(swing, shares)) > 0.2
    assert min(max(path[:10]) for path in shares) > 0.9
    assert statistics.fmean(min(path[:20]) for path in shares) < 0.1
    assert statistics.fmean(sum(min(share, 1.0 - share) < 0.1 for share in path) for path in shares) > 6
    assert max(map(reach, paths("lagrangian", RESPONSES[name]))) < 0.4


def test_the_figures_of_the_page_are_these() -> None:
    page = (ROOT / "docs" / "controllers.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- closed-loop -->\n(.*?)\n<!-- /closed-loop -->", page, re.DOTALL)
    assert shown is not None
    (words, numbers), (found_words, found_numbers) = _parts(shown[1]), _parts(table())
    assert words == found_words
    assert numbers == pytest.approx(found_numbers, rel=0.1, abs=0.02)  # exp and log differ between C libraries


def _parts(text: str) -> tuple[list[str], list[float]]:
    number = r"\d+\.?\d*"
    return re.split(number, text), [float(found) for found in re.findall(number, text)]
