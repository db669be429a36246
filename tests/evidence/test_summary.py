"""The report object: shape, agreement with a short script, rows, edge cases."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stages.evidence.estimates import question_tables
from stages.evidence.questions import QuestionRow
from stages.evidence.summary import compare, flat_metrics

SETTINGS: dict[str, Any] = {"margin": 0.01, "alpha": 0.05, "confidence": 0.95, "resamples": 500, "seed": 1}
SIDE = {
    "accuracy", "accuracy_se", "mean_tokens", "p50_tokens", "p90_tokens", "p99_tokens", "truncation_rate",
    "accuracy_ci", "mean_tokens_se", "mean_tokens_ci", "pass_at_k",
    "no_think_rate", "tokens_per_correct", "tokens_given_correct", "tokens_given_wrong", "num_questions", "num_samples",
}  # fmt: skip

NUMBERS = SIDE - {"accuracy_ci", "mean_tokens_ci", "pass_at_k"}
PART = (
    *("token_reduction", "accuracy_difference", "verdict", "verdict_holm", "p_inferior", "p_regression"),
    "minimum_detectable_effect",
)


def answers(
    seed: int, *, task: str = "tiny", num: int = 44, samples: int = 2, groups: int = 11, scale: float = 1.0
) -> list[QuestionRow]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        for k in range(samples):
            correct = bool(rng.random() < 0.9)
            truncated = not correct and bool(rng.random() < 0.5)
            tokens = int(scale * rng.lognormal(4, 0.5)) + 1
            group = f"length-{i % groups + 1}" if groups else ""
            rows.append(
                QuestionRow(task, group, f"{task}-{i}", k, correct, tokens, truncated, bool(rng.random() < 0.1))
            )
    return rows


def report_of(base: list[QuestionRow], candidate: list[QuestionRow], **changes: Any) -> dict[str, Any]:
    return compare(question_tables(base), question_tables(candidate), **{**SETTINGS, **changes})


def test_figures_agree_with_a_short_script() -> None:
    base, candidate = answers(1), answers(2, scale=0.5)
    report = report_of(base, candidate)
    mean_correct = [
        np.mean([[r.correct for r in rows if r.question_id == f"tiny-{i}"] for i in range(44)], axis=1)
        for rows in (base, candidate)
    ]
    assert report["baseline"]["accuracy"] == pytest.approx(np.mean([r.correct for r in base]))
    assert report["baseline"]["accuracy_se"] == pytest.approx(np.std(mean_correct[0], ddof=1) / np.sqrt(44))
    difference = mean_correct[1] - mean_correct[0]
    assert report["accuracy_difference"]["value"] == pytest.approx(difference.mean())
    assert report["accuracy_difference"]["se"] == pytest.approx(difference.std(ddof=1) / np.sqrt(44))
    side = report["candidate"]
    tokens = np.array([r.num_tokens for r in candidate])
    right = np.array([r.correct for r in candidate])
    assert side["mean_tokens"] == pytest.approx(tokens.mean())
    assert side["tokens_given_correct"] == pytest.approx(tokens[right].mean())
    assert side["tokens_given_wrong"] == pytest.approx(tokens[~right].mean())
    assert side["tokens_per_correct"] == pytest.approx(tokens.sum() / right.sum())
    assert side["truncation_rate"] == pytest.approx(np.mean([r.truncated for r in candidate]))
    assert side["no_think_rate"] == pytest.approx(np.mean([r.no_think for r in candidate]))
    micro = 1 - tokens.sum() / sum(r.num_tokens for r in base)
    assert report["token_reduction"]["micro"] == pytest.approx(micro)
    assert (side["num_questions"], side["num_samples"]) == (44, 88)


def test_shape_and_json() -> None:
    report = report_of(answers(1), answers(2, scale=0.5))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["schema_version"] == 2
    for side in ("baseline", "candidate"):
        assert set(report[side]) == SIDE | {"tasks"}
        assert all(set(row) == SIDE for row in report[side]["tasks"].values())
    row = {"micro", "ci", "median", "median_ci", "both_correct", "both_correct_ci"}
    assert set(report["token_reduction"]) == row | {"macro", "macro_ci", "clipped_macro"}
    assert report["confidence"] == 0.95
    assert report["mismatches"] == []
    assert report["verdict"] in {"PASS", "FAIL", "INCONCLUSIVE"}
    assert report["aes"]["weights"] == [1.0, 3.0, 5.0]
    for part in report["tasks"].values():
        assert set(part["token_reduction"]) == row
        assert set(part) == set(PART)


def test_rows_are_groups_in_natural_order_and_macro_is_their_signed_mean() -> None:
    report = report_of(answers(1), answers(2, scale=1.5))
    assert list(report["tasks"]) == [f"length-{i}" for i in range(1, 12)]
    micros = [part["token_reduction"]["micro"] for part in report["tasks"].values()]
    assert report["token_reduction"]["macro"] == pytest.approx(np.mean(micros))
    assert report["token_reduction"]["macro"] < 0
    assert report["fewer_tokens_at_no_loss"] is False


def test_rows_are_tasks_if_there_are_several_even_with_other_sample_counts() -> None:
    base = answers(1, task="aime", num=6, samples=4, groups=0) + answers(2, task="gsm", num=50, samples=1)
    new = answers(3, task="gsm", num=50, samples=1, scale=0.4) + answers(4, task="aime", num=6, samples=4, groups=0)
    report = report_of(base, new)
    assert list(report["tasks"]) == ["aime", "gsm"]
    assert report["baseline"]["num_questions"] == 56
    gsm, aime = report["baseline"]["tasks"]["gsm"], report["baseline"]["tasks"]["aime"]
    pooled = (50 * gsm["mean_tokens"] + 6 * aime["mean_tokens"]) / 56
    assert report["baseline"]["mean_tokens"] == pytest.approx(pooled)


def test_one_row_repeats_the_whole() -> None:
    report = report_of(answers(1, groups=0), answers(2, groups=0))
    assert list(report["tasks"]) == ["tiny"]
    assert report["tasks"]["tiny"]["token_reduction"]["ci"] == report["token_reduction"]["ci"]


def test_order_of_rows_does_not_matter_and_other_rows_keep_their_intervals() -> None:
    base, new = answers(1), answers(2, scale=0.5)
    report = report_of(base, new)
    assert report_of(base, new[::-1]) == report
    fewer = report_of([r for r in base if r.group != "length-3"], [r for r in new if r.group != "length-3"])
    assert fewer["tasks"]["length-4"] == report["tasks"]["length-4"]


def test_equal_models_are_inconclusive_when_few_and_pass_when_many() -> None:
    few = answers(1, num=30, groups=0)
    report = report_of(few, few)
    assert report["accuracy_difference"]["value"] == 0
    assert report["verdict"] == "INCONCLUSIVE"
    reduction = report["token_reduction"]
    assert all(value == [0, 0] for name, value in reduction.items() if name.endswith("ci"))
    assert {value for name, value in reduction.items() if not name.endswith("ci")} == {0}
    many = answers(1, num=400, samples=1, groups=0)
    report = report_of(many, many)
    assert report["verdict"] == "PASS"
    assert report["fewer_tokens_at_no_loss"] is False


def test_joint_claim_needs_both() -> None:
    base = [QuestionRow("t", "", f"q{i}", 0, True, 100 + i % 7, False, False) for i in range(400)]
    short = [QuestionRow("t", "", f"q{i}", 0, True, 40 + i % 5, False, False) for i in range(400)]
    assert report_of(base, short)["fewer_tokens_at_no_loss"] is True
    worse = [QuestionRow("t", "", f"q{i}", 0, i > 40, 40 + i % 5, False, False) for i in range(400)]
    report = report_of(base, worse)
    assert (report["verdict"], report["fewer_tokens_at_no_loss"]) == ("FAIL", False)


def test_no_correct_answer_and_one_question() -> None:
    wrong = [QuestionRow("t", "", "q", 0, False, 10, False, False)]
    report = report_of(wrong, wrong)
    side = report["baseline"]
    assert (side["accuracy"], side["accuracy_se"], side["tokens_per_correct"]) == (0, None, None)
    assert side["tokens_given_correct"] is None
    assert report["aes"]["value"] is None
    assert report["token_reduction"]["ci"] is None
    assert report["token_reduction"]["both_correct"] is None
    assert report["verdict"] == "INCONCLUSIVE"
    json.dumps(report, allow_nan=False)
    assert None not in flat_metrics(report).values()


def test_allowed_mismatch_compares_what_is_common_and_says_so() -> None:
    report = report_of(answers(1), answers(1, num=33, samples=3), allow_mismatch=True)
    assert report["candidate"]["num_questions"] == report["baseline"]["num_questions"] == 33
    assert [sentence.partition(":")[0] for sentence in report["mismatches"]] == ["question_id", "sample_index"]


def test_rows_are_judged_at_the_level_of_all_of_them() -> None:
    base = [r for i in range(6) for r in answers(1, task=f"t{i}", num=300, samples=1, groups=0)]
    report = report_of(base, base)
    assert {part["verdict"] for part in report["tasks"].values()} == {"PASS"}  # 0 of 300 excludes 1 % at .05
    assert {part["verdict_holm"] for part in report["tasks"].values()} == {"INCONCLUSIVE"}  # not at .05 / 6
    assert report["verdict"] == "PASS"


def test_mismatch_names_the_field() -> None:
    with pytest.raises(ValueError, match=r"^task: "):
        report_of(answers(1), answers(1, task="other"))
    with pytest.raises(ValueError, match=r"^task: "):
        report_of([*answers(1), *answers(1, task="other")], answers(1))
    with pytest.raises(ValueError, match=r"^question_id: "):
        report_of(answers(1), answers(1, num=43))
    with pytest.raises(ValueError, match=r"^sample_index: "):
        report_of(answers(1), answers(1, samples=3))
    with pytest.raises(ValueError, match=r"^group: "):
        report_of(answers(1), answers(1, groups=5))
    with pytest.raises(ValueError, match=r"^resamples: "):
        report_of(answers(1), answers(2), resamples=3)


def test_flat_metrics_are_numbers_with_stable_names() -> None:
    report = report_of(answers(1), answers(2, scale=0.5))
    metrics = flat_metrics(report)
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert metrics["token_reduction"] == report["token_reduction"]["micro"]
    assert metrics["verdict"] == {"PASS": 1, "FAIL": -1, "INCONCLUSIVE": 0}[report["verdict"]]
    assert {f"{side}_{name}" for side in ("baseline", "candidate") for name in NUMBERS} <= set(metrics)
    assert metrics == flat_metrics(report_of(answers(1), answers(2, scale=0.5)))
