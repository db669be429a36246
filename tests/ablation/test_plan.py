"""The plan is checked once, on load, and the message names what is wrong; an arm changes the ratio and nothing else."""

from __future__ import annotations

import json

import pytest

from stages._errors import UserError
from stages._params import read_yaml
from stages.ablation.plan import FILE, load_plan, run_document
from tests.paths import ROOT

PARAMS = read_yaml(ROOT / "params.yaml")
PLAN = {
    "jobs": 2,
    "engine": {"processes": 1, "threads": 1},
    "tune_seeds": [1],
    "report_seeds": [6, 7],
    "test_seed": 2,
    "frontier": {"chains": 100, "seed": 1},
    "arms": {
        "half": {"schedule": "static", "init": 0.5},
        "paper": {"schedule": "dynamic", "controller": "paper"},
        "up": {"schedule": "linear", "init": 0.0, "final": 1.0},
    },
    "variants": [],
}


def load(tmp_path, **changes):
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN | changes))
    return load_plan(tmp_path / "plan.yaml", PARAMS)


def arms(**more):
    return {"arms": PLAN["arms"] | more}


def test_the_shipped_plan_has_every_way_to_move_the_ratio_with_five_seeds_of_each_kind():
    plan = load_plan(ROOT / FILE, PARAMS)
    assert [plan.arms[name]["init"] for name in plan.static] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert {values.get("controller") for values in plan.arms.values()} >= {"paper", "robust", "lagrangian"}
    assert {values["schedule"] for values in plan.arms.values()} == {"static", "linear", "cosine", "random", "dynamic"}
    linear = [(values["init"], values["final"]) for values in plan.arms.values() if values["schedule"] == "linear"]
    assert {first < last for first, last in linear} == {True, False}, "one goes up and one down"
    assert min(len(plan.tune_seeds), len(plan.report_seeds)) >= 5
    assert plan.test_seed != PARAMS["tiny"]["seed"]
    assert plan.tuned == [*plan.static, "robust", "robust-unsmoothed"], "nothing about the others is chosen"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jobs": 0}, "jobs = 0: input should be greater than or equal to 1"),
        ({"job": 2}, "unknown key job"),
        ({"tune_seeds": []}, r"tune_seeds = \[\]"),
        ({"tune_seeds": [3, 3]}, "tune_seeds holds a seed twice"),
        ({"tune_seeds": [1, 7]}, "seed 7 is in tune_seeds and in report_seeds"),
        ({"variants": [["half", "paaper"]]}, "variants names paaper, which is no arm"),
        ({"variants": [["half", "up"], ["up", "paper"]]}, "variants names up twice"),
        ({"arms": {"a": {"schedule": "linear"}, "b": {"schedule": "cosine"}}}, "no arm has schedule: static"),
        (arms(twin={"init": 0.5, "schedule": "static"}), "arms half and twin are the same"),
        (arms(lazy={"init": 0.5}), "arm lazy has no schedule"),
        (arms(Bad={"schedule": "random"}), "Bad"),
        (arms(more={"schedule": "random", "control_samples": 8}), r"arm more sets ratio\.control_samples, which must be alike"),
        (arms(typo={"schedule": "dynamic", "etta": 1.0}), r"arm typo: unknown key ratio\.etta"),
        (arms(high={"schedule": "static", "init": 1.5}), r"arm high: ratio\.init = 1\.5"),
    ],
)  # fmt: skip
def test_wrong_plans_are_refused_by_name(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as failure:
        load(tmp_path, **changes)
    assert "\n" not in str(failure.value)


def test_a_missing_plan_and_a_missing_key_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist; restore it with git"):
        load_plan(tmp_path / "none.yaml", PARAMS)
    (tmp_path / "plan.yaml").write_text(json.dumps({key: value for key, value in PLAN.items() if key != "jobs"}))
    with pytest.raises(UserError, match="key jobs is missing"):
        load_plan(tmp_path / "plan.yaml", PARAMS)
    (tmp_path / "plan.yaml").write_text("- a list\n")
    with pytest.raises(UserError, match="must be a mapping"):
        load_plan(tmp_path / "plan.yaml", PARAMS)


def test_an_arm_changes_seed_engine_ratio_and_test_set_alone(tmp_path):
    document = run_document(PARAMS, load(tmp_path), "up", 6, "data/fresh.jsonl")
    changed = {key for key in PARAMS if document[key] != PARAMS[key]}
    assert changed == {"seed", "engine", "ratio", "data"}
    assert document["seed"] == 6 and document["data"] == PARAMS["data"] | {"test": {"path": "data/fresh.jsonl"}}
    assert document["engine"] == PARAMS["engine"] | {"processes": 1, "threads": 1}
    assert document["ratio"] == PARAMS["ratio"] | {"schedule": "linear", "init": 0.0, "final": 1.0}
