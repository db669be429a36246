"""The policy of the gate: the shipped file is sound, entries inherit and match, and what is wrong is named."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stages._params import read_yaml
from stages.evidence.policy import TIERS, check_policy
from tests.paths import ROOT

DOCUMENT: dict[str, Any] = {
    "schema_version": 1,
    "alpha": 0.05,
    "confidence": 0.95,
    "resamples": 2000,
    "seed": 3,
    "defaults": {
        "tier": "critical",
        "accuracy_margin": 0.01,
        "min_token_reduction": None,
        "max_truncation_rate": 0.02,
        "max_no_think_rate": 0,
    },
    "benchmarks": {
        "mmlu*": {"tier": "off_domain", "required": True},
        "mmlu_pro": {"tier": "advisory", "max_truncation_rate": None},
        "*": {"tier": "supporting"},
    },
}


def test_the_shipped_policy_names_off_domain_suites_and_judges_mathematics() -> None:
    policy = check_policy(read_yaml(ROOT / "policy.yaml"))
    off_domain = ("mmlu_pro", "leaderboard_ifeval", "humaneval", "gpqa_diamond_zeroshot", "bbh_cot_fewshot_navigate")
    assert {policy.rules(name).tier for name in off_domain} == {"off_domain"}
    assert {policy.rules(name).tier for name in ("tiny", "tldr_gsm8k", "tldr_math500")} == {"critical"}
    assert policy.rules("tldr_aime24").tier == "supporting"
    assert policy.rules("tiny").min_token_reduction is not None


def test_the_documented_keys_are_those_of_the_policy() -> None:
    documented = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    policy = read_yaml(ROOT / "policy.yaml")
    for name in (*policy, *policy["defaults"], *TIERS, "required"):
        assert f"`{name}`" in documented, name


def test_an_exact_name_wins_then_the_first_pattern_and_the_rest_is_inherited() -> None:
    policy = check_policy(DOCUMENT)
    assert policy.rules("mmlu_pro").tier == "advisory"
    assert policy.rules("mmlu_pro").max_truncation_rate is None
    assert policy.rules("mmlu_law").tier == "off_domain"
    assert policy.rules("mmlu_law").max_truncation_rate == 0.02
    assert policy.rules("MMLU").tier == "supporting"
    without = check_policy({**DOCUMENT, "benchmarks": None})
    assert without.rules("MMLU") == without.defaults


def test_required_names_and_patterns_need_one_benchmark_each() -> None:
    policy = check_policy(DOCUMENT)
    assert policy.missing(["gsm8k"]) == ["mmlu*"]
    assert policy.missing(["gsm8k", "mmlu_law"]) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "schema_version = 2"),
        ("schema_version", True, "schema_version = True"),
        ("alpha", "5 %", "alpha = '5 %': must be a number above 0 and below 0.5"),
        ("alpha", 0.5, "alpha = 0.5"),
        ("alpha", True, "alpha = True"),
        ("confidence", float("nan"), "confidence = nan"),
        ("resamples", 10.5, "resamples = 10.5: must be a whole number"),
        ("resamples", 10, "resamples = 10"),
        ("seed", -1, "seed = -1"),
        ("seed", 10**4000, "seed = a number of more than 18 digits"),
        ("extra", 1, "unknown key extra"),
        ("defaults", None, "defaults: None is not a mapping"),
        ("defaults.tier", "vital", "defaults.tier = 'vital': must be one of critical"),
        ("defaults.tier", ["critical"], "defaults.tier"),
        ("defaults.accuracy_margin", None, "defaults.accuracy_margin = None"),
        ("defaults.accuracy_margin", 1, "defaults.accuracy_margin = 1"),
        ("defaults.min_token_reduction", 1, "defaults.min_token_reduction = 1"),
        ("defaults.max_truncation_rate", 5, "defaults.max_truncation_rate = 5: must be a number from 0 to 1"),
        ("defaults.max_no_think_rate", float("inf"), "defaults.max_no_think_rate = inf"),
        ("defaults.required", True, "unknown key defaults.required"),
        ("benchmarks", ["mmlu"], "benchmarks: ['mmlu'] is not a mapping"),
        ("benchmarks.mmlu*", None, "benchmarks.mmlu*: None is not a mapping"),
        ("benchmarks.mmlu*.required", "yes", "benchmarks.mmlu*.required = 'yes': must be true or false"),
        ("benchmarks.mmlu*.margin", 0.1, "unknown key benchmarks.mmlu*.margin"),
        ("benchmarks.mmlu*.acuracy_margin", 0.1, "did you mean accuracy_margin?"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, message: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    *blocks, last = path.split(".")
    place: Any = document
    for block in blocks:
        place = place[block]
    place[last] = value
    with pytest.raises(ValueError) as found:
        check_policy(document)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", [name for name in DOCUMENT if name != "benchmarks"])
def test_every_key_must_be_there(name: str) -> None:
    with pytest.raises(ValueError, match=f"key {name} is missing"):
        check_policy({key: value for key, value in DOCUMENT.items() if key != name})
    with pytest.raises(ValueError, match=r"key defaults\.tier is missing"):
        check_policy({**DOCUMENT, "defaults": {}})


@pytest.mark.parametrize("document", [None, [], "text", {1: 2}])
def test_what_is_no_policy_at_all_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="the policy: "):
        check_policy(document)
