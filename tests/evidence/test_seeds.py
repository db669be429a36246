"""Several training runs against one baseline: each alone, pooled, and their spread."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from stages.evidence.estimates import QuestionTable, question_tables
from stages.evidence.questions import QuestionRow
from stages.evidence.seeds import compare_runs
from stages.evidence.summary import compare

SETTINGS: dict[str, Any] = {"margin": 0.02, "alpha": 0.05, "confidence": 0.95, "resamples": 200, "seed": 1}
Tables = dict[str, QuestionTable]


def answers(seed: int, accuracy: float, tokens: float, num: int = 120, samples: int = 2) -> Tables:
    rng = np.random.default_rng(seed)
    return question_tables(
        QuestionRow("t", "", f"q{i}", k, bool(rng.random() < accuracy), int(rng.gamma(4, tokens / 4)) + 1, False, False)
        for i in range(num)
        for k in range(samples)
    )


def once(base: Any, candidate: Any, allow_mismatch: bool) -> dict[str, Any]:
    return partial(compare, **SETTINGS)(base, candidate, allow_mismatch=allow_mismatch)


BASE = answers(1, 0.9, 200)
RUNS = {f"run {seed}": answers(seed, 0.9, 80 + 10 * seed) for seed in (2, 3, 4)}


def test_each_run_stands_alone_and_the_spread_is_theirs() -> None:
    report = compare_runs(BASE, RUNS, once, False)
    assert report["runs"] == {name: once(BASE, run, False) for name, run in RUNS.items()}
    micros = [run["token_reduction"]["micro"] for run in report["runs"].values()]
    spread = report["spread"]
    assert spread["num_runs"] == 3
    assert spread["token_reduction_micro"]["mean"] == pytest.approx(np.mean(micros))
    assert spread["token_reduction_micro"]["sd"] == pytest.approx(np.std(micros, ddof=1))
    assert (spread["token_reduction_micro"]["min"], spread["token_reduction_micro"]["max"]) == (
        min(micros),
        max(micros),
    )
    assert sum(spread["verdicts"].values()) == 3


def test_pooled_runs_weigh_alike_and_are_no_mismatch() -> None:
    report = compare_runs(BASE, RUNS, once, False)
    assert report["mismatches"] == []
    assert report["candidate"]["num_samples"] == 3 * report["baseline"]["num_samples"]
    for figure in ("accuracy", "mean_tokens"):
        mean = np.mean([run["candidate"][figure] for run in report["runs"].values()])
        assert report["candidate"][figure] == pytest.approx(mean)
    mean = np.mean([run["accuracy_difference"]["value"] for run in report["runs"].values()])
    assert report["accuracy_difference"]["value"] == pytest.approx(mean)


def test_a_run_of_other_questions_is_named() -> None:
    with pytest.raises(ValueError, match=r"^other: question_id: "):
        compare_runs(BASE, {**RUNS, "other": answers(5, 0.9, 90, num=119)}, once, False)
    report = compare_runs(BASE, {**RUNS, "other": answers(5, 0.9, 90, num=119)}, once, True)
    assert report["baseline"]["num_questions"] == 119
    assert len(report["mismatches"]) == 1


def test_one_run_has_no_spread() -> None:
    with pytest.raises(ValueError, match=r"^candidate: "):
        compare_runs(BASE, {"run": BASE}, once, False)
