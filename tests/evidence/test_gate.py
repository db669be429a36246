"""The gate's decision: verdict per criterion, tiers, Holm over benchmarks, rates, tokens, what is not measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from stages.evidence.estimates import QuestionTable
from stages.evidence.gate import decide, rate_p_value, token_p_value
from stages.evidence.policy import Policy, check_policy
from stages.evidence.summary import compare

DEFAULTS: dict[str, Any] = {
    "tier": "critical",
    "accuracy_margin": 0.02,
    "min_token_reduction": -0.05,
    "max_truncation_rate": 0.05,
    "max_no_think_rate": 0.05,
}


def policy(benchmarks: dict[str, Any] | None = None, **defaults: Any) -> Policy:
    levels = {"schema_version": 1, "alpha": 0.05, "confidence": 0.95, "resamples": 1000, "seed": 1}
    return check_policy({**levels, "defaults": DEFAULTS | defaults, "benchmarks": benchmarks})


def toy(
    num: int = 400, *, wrong: int = 40, tokens: int = 100, spread: int = 9, truncated: int = 0, no_think: int = 0
) -> QuestionTable:
    """One answer to each of `num` questions: the first `wrong` are wrong, the first `truncated` of them cut."""
    index = np.arange(num)[:, None]
    return QuestionTable(
        "toy",
        tuple(f"q{i}" for i in range(num)),
        ("",) * num,
        correct=index >= wrong,
        tokens=tokens + 7 * index % (spread + 1),
        truncated=index < truncated,
        no_think=index >= num - no_think,
    )


def gate(pairs: dict[str, tuple[QuestionTable, QuestionTable]], rules: Policy, lost: tuple[str, ...] = ()) -> Any:
    reports = {
        name: compare(
            {"toy": before},
            {"toy": after},
            margin=rules.rules(name).accuracy_margin,
            alpha=rules.alpha,
            confidence=rules.confidence,
            resamples=rules.resamples,
            seed=rules.seed,
        )
        for name, (before, after) in pairs.items()
    }
    return decide(reports, {name: after for name, (_, after) in pairs.items()}, rules, only_baseline=lost)


def criteria(result: Any, benchmark: str = "a") -> dict[str, str]:
    (found,) = (each for each in result["benchmarks"] if each["name"] == benchmark)
    return {each["criterion"]: each["verdict"] for each in found["criteria"]}


def test_no_change_passes_every_criterion() -> None:
    result = gate({"a": (toy(), toy())}, policy())
    assert criteria(result) == dict.fromkeys(("accuracy", "tokens", "truncation", "no_think"), "PASS")
    assert result["verdict"] == "PASS"


@pytest.mark.parametrize(("wrong", "verdict"), [(40, "PASS"), (50, "INCONCLUSIVE"), (100, "FAIL")])
def test_accuracy_is_a_non_inferiority_test(wrong: int, verdict: str) -> None:
    result = gate({"a": (toy(), toy(wrong=wrong))}, policy())
    assert criteria(result)["accuracy"] == verdict
    assert result["verdict"] == verdict


@pytest.mark.parametrize(
    ("tokens", "minimum", "verdict"),
    [(110, -0.05, "FAIL"), (104, -0.05, "PASS"), (70, 0.2, "PASS"), (100, 0.2, "FAIL"), (100, None, None)],
)
def test_tokens_are_judged_by_their_interval(tokens: int, minimum: float | None, verdict: str | None) -> None:
    result = gate({"a": (toy(), toy(tokens=tokens))}, policy(min_token_reduction=minimum))
    assert criteria(result).get("tokens") == verdict
    assert result["verdict"] == (verdict or "PASS")


def test_a_wide_token_interval_decides_nothing() -> None:
    grown = toy(spread=399)
    shuffled = grown.select([(7 * i) % 400 for i in range(400)])
    before = QuestionTable("toy", grown.question_ids, *(getattr(shuffled, name) for name in COLUMNS))
    assert criteria(gate({"a": (before, grown)}, policy(min_token_reduction=0.0)))["tokens"] == "INCONCLUSIVE"


COLUMNS = ("groups", "correct", "tokens", "truncated", "no_think")


@pytest.mark.parametrize(("count", "verdict"), [(20, "PASS"), (25, "INCONCLUSIVE"), (36, "FAIL")])
def test_rates_fail_only_where_shown(count: int, verdict: str) -> None:
    for changed in ({"truncated": count}, {"no_think": count}):
        result = gate({"a": (toy(), toy(**changed))}, policy())
        assert criteria(result)["truncation" if "truncated" in changed else "no_think"] == verdict
        assert result["verdict"] == verdict


def test_one_truncated_answer_disproves_a_limit_of_zero() -> None:
    assert criteria(gate({"a": (toy(), toy(truncated=1))}, policy(max_truncation_rate=0)))["truncation"] == "FAIL"


@pytest.mark.parametrize(
    ("tier", "wrong", "verdict"),
    [
        ("critical", 100, "FAIL"),
        ("critical", 50, "INCONCLUSIVE"),
        ("off_domain", 100, "FAIL"),
        ("off_domain", 50, "INCONCLUSIVE"),
        ("supporting", 100, "FAIL"),
        ("supporting", 50, "PASS"),
        ("advisory", 100, "PASS"),
        ("advisory", 50, "PASS"),
    ],
)
def test_tiers_decide_what_counts(tier: str, wrong: int, verdict: str) -> None:
    pairs = {"a": (toy(), toy()), "b": (toy(), toy(wrong=wrong))}
    result = gate(pairs, policy({"b": {"tier": tier}}))
    assert result["verdict"] == verdict
    assert criteria(result, "b")["accuracy"] == ("FAIL" if wrong == 100 else "INCONCLUSIVE")


def test_a_loss_that_is_shown_alone_may_not_hold_over_many_benchmarks() -> None:
    pairs = {f"same-{i}": (toy(), toy()) for i in range(6)}
    lossy = (toy(), toy(wrong=54))
    assert gate({"a": lossy}, policy())["verdict"] == "FAIL"
    result = gate({"a": lossy, **pairs}, policy())
    (found,) = (each for each in result["benchmarks"] if each["name"] == "a")
    assert found["criteria"][0]["p_adjusted"] == pytest.approx(7 * found["criteria"][0]["p_regression"])
    assert result["verdict"] == "INCONCLUSIVE"
    advisory = policy({"same-*": {"tier": "advisory"}})
    assert gate({"a": lossy, **pairs}, advisory)["verdict"] == "FAIL", "advisory benchmarks are not in the family"


def test_gates_without_a_deciding_or_an_off_domain_benchmark_say_so() -> None:
    only_advisory = gate({"a": (toy(), toy())}, policy(tier="advisory"))
    assert only_advisory["verdict"] == "INCONCLUSIVE"
    assert any("advisory" in note for note in only_advisory["notes"])
    math_only = gate({"a": (toy(), toy())}, policy())
    assert any("off-domain" in note for note in math_only["notes"])
    both = gate({"a": (toy(), toy()), "mmlu": (toy(), toy())}, policy({"mmlu*": {"tier": "off_domain"}}))
    assert both["notes"] == [] and both["verdict"] == "PASS"


def test_a_benchmark_that_only_the_baseline_has_decides_nothing() -> None:
    result = gate({"a": (toy(), toy())}, policy(), lost=("b",))
    assert result["verdict"] == "INCONCLUSIVE"
    assert gate({"a": (toy(), toy())}, policy({"b": {"tier": "supporting"}}), lost=("b",))["verdict"] == "PASS"
    mmlu = policy({"mmlu": {"tier": "off_domain"}})
    assert any("off-domain" in note for note in gate({"a": (toy(), toy())}, mmlu, lost=("mmlu",))["notes"])


def test_a_single_question_decides_nothing_about_tokens() -> None:
    one = toy(1, wrong=0)
    assert criteria(gate({"a": (one, one)}, policy()))["tokens"] == "INCONCLUSIVE"


def test_the_rate_p_value_is_exact_for_one_sample() -> None:
    rates = np.array([1.0] * 4 + [0.0] * 36)
    assert rate_p_value(rates, 0.05) == pytest.approx(stats.binom.sf(3, 40, 0.05))
    assert rate_p_value(rates, 0.1) == rate_p_value(rates, 1.0) == 1.0


def test_the_token_p_value_agrees_with_the_interval_at_its_level() -> None:
    inside, outside = (token_p_value(-0.1, (-0.15, upper), -0.05, 0.95) for upper in (-0.0499, -0.0501))
    assert outside < 0.025 < inside
    assert token_p_value(-0.1, None, -0.05, 0.95) == token_p_value(0.1, (0.1, 0.1), 0.1, 0.95) == 1.0
    assert token_p_value(-0.1, (-0.1, -0.1), -0.05, 0.95) == 0.0
