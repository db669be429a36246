"""The card of limits: which sentences stand there for which result."""

from __future__ import annotations

from typing import Any

import pytest

from stages.evidence.estimates import question_tables
from stages.evidence.summary import compare
from stages.page.limits import limits
from tests.page.toy_results import answers


def a_report(lost: int = 0, **kinds: Any) -> dict[str, Any]:
    tables = (question_tables(answers(*which, **kinds)) for which in ((100, 0), (40, lost)))
    settings = {"margin": 0.02, "alpha": 0.05, "confidence": 0.95, "resamples": 1000, "seed": 1}
    container = {"engine": "host", "device": "cpu", "image": "none"}
    return compare(*tables, **settings) | {"container": container, "model": {"selection_fallback": 0}}


def by_title(report: dict[str, Any], *, is_tiny: bool = False) -> dict[str, str]:
    return dict(limits(report, is_tiny=is_tiny))


@pytest.mark.parametrize(
    ("lost", "num", "verdict", "words"),
    [
        (0, 2000, "PASS", "less than 2 points was lost"),
        (0, 40, "INCONCLUSIVE", "not evidence of equal accuracy"),
        (300, 1000, "FAIL", "more than 2 points was lost"),
    ],
)
def test_the_verdict_is_put_into_words(lost: int, num: int, verdict: str, words: str) -> None:
    report = a_report(lost, num=num)
    assert report["verdict"] == verdict
    assert words in by_title(report)["The verdict is about the margin"]
    effect = f"{100 * report['minimum_detectable_effect']:.2f} points"
    assert effect in by_title(report)["Sample size"]


def test_open_rows_are_counted() -> None:
    report = a_report()
    assert "Of 2 rows, 2 are INCONCLUSIVE" in by_title(report)["Rows are small samples"]
    assert "Rows are small samples" not in by_title(a_report(num_groups=1))


def test_what_applies_to_some_runs_only() -> None:
    report = a_report()
    always = set(by_title(report))
    assert {"One training run", "Truncated answers", "Tokens are not seconds"} <= always
    assert set(by_title(report, is_tiny=True)) - always == {"A model organism"}
    report["model"]["selection_fallback"] = 1
    assert limits(report, is_tiny=False)[0].title == "Selection fallback"
    report["container"]["device"] = "cpu and cuda"
    assert "differ in their container's device" in by_title(report)["Made in different places"]
    report["mismatches"] = ["The tokenizer differs."]
    assert by_title(report)["The two sides differ"] == "The tokenizer differs."
