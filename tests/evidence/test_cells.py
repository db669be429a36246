"""Published means against each other: pairing, the three ways to average, and what is not known."""

from __future__ import annotations

import json
import math

import pytest

from stages.evidence.cells import Cell, compare_cells

BASE = [Cell("easy", 0.9, 100.0), Cell("hard", 0.5, 1000.0)]


def test_every_figure_of_two_benchmarks_by_hand():
    report = compare_cells(BASE, [Cell("hard", 0.4, 1100.0), Cell("easy", 0.95, 20.0)])
    reduction = report["token_reduction"]
    assert reduction["micro"] == pytest.approx(1 - 1120 / 1100)
    assert reduction["macro"] == pytest.approx((0.8 - 0.1) / 2)
    assert reduction["clipped_macro"] == pytest.approx(0.8 / 2)
    assert report["accuracy_difference"]["value"] == pytest.approx(-0.025)
    assert report["aes"]["value"] == pytest.approx((1 - 1120 / 1100) - 5 * 0.025 / 0.7)
    assert report["aes"]["weights"] == [1, 3, 5]
    assert list(report["tasks"]) == ["easy", "hard"]
    assert report["tasks"]["hard"]["token_reduction"]["micro"] == pytest.approx(-0.1)
    assert report["candidate"]["tasks"]["hard"] == {"accuracy": 0.4, "accuracy_se": None, "mean_tokens": 1100.0}


def test_a_gain_in_accuracy_counts_three_times():
    report = compare_cells([Cell("a", 0.5, 100.0)], [Cell("a", 0.6, 90.0)])
    assert report["aes"]["value"] == pytest.approx(0.1 + 3 * 0.2)


def test_nothing_is_claimed_that_means_do_not_show():
    report = compare_cells(BASE, BASE)
    reduction, difference = report["token_reduction"], report["accuracy_difference"]
    assert reduction == {"micro": 0, "ci": None, "macro": 0, "macro_ci": None, "clipped_macro": 0}
    assert difference == {"value": 0, "se": None, "ci": None}
    assert report["verdict"] is None
    assert all(row["verdict"] is None and row["token_reduction"]["ci"] is None for row in report["tasks"].values())
    assert "no intervals" in report["note"]


def test_different_benchmarks_are_named_with_the_side_that_has_them():
    with pytest.raises(ValueError, match="hard only in the baseline and other only in the candidate"):
        compare_cells(BASE, [BASE[0], Cell("other", 0.5, 10.0)])
    with pytest.raises(ValueError, match=r"the benchmarks differ: hard only in the baseline$"):
        compare_cells(BASE, BASE[:1])
    with pytest.raises(ValueError, match="there are none"):
        compare_cells([], [])


@pytest.mark.parametrize("accuracy", [0.0, math.ulp(0.0)])
def test_without_a_right_answer_of_the_baseline_there_is_no_score(accuracy):
    report = compare_cells([Cell("a", accuracy, 100.0)], [Cell("a", 1.0, 50.0)])
    assert report["aes"]["value"] is None
    json.dumps(report, allow_nan=False)
