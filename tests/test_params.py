"""params.yaml is checked once, on load, and the message names key, value and bound."""

from __future__ import annotations

import copy

import pytest

from stages._errors import UserError
from stages._params import check_params, load_params, read_yaml, used
from stages.cli.profile import overlay_of
from tests.paths import ROOT

DOCUMENT = read_yaml(ROOT / "params.yaml")


def changed(key, value):
    document = copy.deepcopy(DOCUMENT)
    *blocks, name = key.split(".")
    inner = document
    for block in blocks:
        inner = inner[block]
    inner[name] = value
    return document


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ratio.init", 1.5, r"ratio\.init = 1\.5: .*less than or equal to 1"),
        ("ratio.init", "0.5", r"ratio\.init = '0\.5': .*valid number"),
        ("ratio.floor", 0.5, r"ratio\.floor = 0\.5: .*less than 0\.5"),
        ("ratio.controller", "papper", r"ratio\.controller = 'papper': .*'robust', 'paper' or 'lagrangian'"),
        ("ratio.margin", 1.0, r"ratio\.margin = 1\.0: .*less than 1"),
        ("ratio.dual_step", 0.0, r"ratio\.dual_step = 0\.0: .*greater than 0"),
        ("ratio.dead_zone", -1.0, r"ratio\.dead_zone = -1\.0: .*greater than or equal to 0"),
        ("ratio.etta", 4, r"unknown key ratio\.etta"),
        ("train.max_steps", 97, r"max_steps 97 must be a multiple of update_every 16"),
        ("train.lr", -1e-3, r"train\.lr = -0\.001"),
        ("decode.max_tokens", 0, r"decode\.max_tokens = 0"),
        ("seed", True, r"seed = True: .*valid integer"),
        ("ratio.short_bound.source", "model", r"source: model needs a path"),
        ("container.engine", "auto", r"container\.engine = 'auto'"),
        ("evaluate.tasks", [], r"evaluate\.tasks = \[\]"),
        ("decode.temperature", 0.001, r"decode\.temperature = 0\.001: must be 0 \(greedy\) or from 0\.01 to 2"),
        ("decode.temperature", 2.5, r"decode\.temperature = 2\.5: must be"),
        ("decode.temperature", float("nan"), r"decode\.temperature = nan: must be"),
        ("decode.repetition", {"max_pattern_size": 4, "min_count": 1}, r"decode\.repetition\.min_count = 1"),
        ("sample.samples_per_problem", 0, r"sample\.samples_per_problem = 0"),
        ("evaluate.budgets", [], r"evaluate\.budgets = \[\]"),
        ("train.control_engine", "colocated", r"train\.control_engine: colocated needs engine\.name: vllm"),
        ("engine.vllm.gpu_memory_utilization", 1.5, r"engine\.vllm\.gpu_memory_utilization = 1\.5"),
    ],
)
def test_wrong_values_are_named(key, value, said):
    with pytest.raises(UserError, match=said) as failure:
        check_params(changed(key, value), "params.yaml")
    assert "\n" not in str(failure.value)


def test_budgets_beyond_the_limit_of_an_answer_count_as_that_limit():
    document = changed("decode.max_tokens", 100)
    document["evaluate"]["budgets"] = [512, 64, 256, 32]
    assert check_params(document, "params.yaml").budgets == [32, 64, 100]


def test_batch_invariance_is_refused_where_vllm_has_no_such_mode():
    document = changed("engine.vllm.batch_invariant", True)
    check_params(document, "params.yaml")
    document["engine"]["name"] = "vllm"
    with pytest.raises(UserError, match=r"engine\.vllm\.batch_invariant needs container\.device: cuda"):
        check_params(document, "params.yaml")


def test_the_constraint_of_lagrangian_leaves_room_for_a_checkpoint_to_pass():
    document = changed("ratio.margin", 0.01)
    check_params(document, "params.yaml")
    document["ratio"]["controller"] = "lagrangian"
    with pytest.raises(UserError, match=r"ratio\.margin 0\.01 must be below select\.margin 0\.01"):
        check_params(document, "params.yaml")
    document["ratio"]["margin"] = 0.009
    check_params(document, "params.yaml")
    document["ratio"]["floor"] = 0.0
    with pytest.raises(UserError, match="lagrangian needs a floor above 0"):
        check_params(document, "params.yaml")


@pytest.mark.parametrize(
    ("controller", "schedule", "floor"),
    [
        ("robust", "dynamic", True),
        ("lagrangian", "dynamic", True),
        ("paper", "dynamic", False),
        ("paper", "random", True),
        ("lagrangian", "static", False),
    ],
)
def test_where_the_floor_bounds_the_share(controller, schedule, floor):
    document = changed("ratio.controller", controller)
    document["ratio"]["schedule"] = schedule
    assert check_params(document, "params.yaml").ratio.has_floor is floor


def test_a_missing_key_is_named():
    document = copy.deepcopy(DOCUMENT)
    del document["select"]["margin"]
    with pytest.raises(UserError, match=r"key select\.margin is missing"):
        check_params(document, "params.yaml")


def test_numbers_that_dvc_rewrites_are_still_numbers(tmp_path):
    """`-S train.lr=0.00002` is stored as 2e-05, which YAML 1.1 readers take for text."""
    (tmp_path / "params.yaml").write_text("lr: 2e-05\n")
    assert read_yaml(tmp_path / "params.yaml") == {"lr": 2e-05}


@pytest.mark.parametrize("text", ["a: [", "\tb: 1", "a: 1\na: 2"])
def test_broken_yaml_is_one_sentence(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="not valid YAML") as failure:
        load_params(tmp_path)
    assert "\n" not in str(failure.value)


def test_an_unknown_profile_lists_the_known_ones(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "tiny.yaml").write_text("profile: tiny\n")
    text = (ROOT / "params.yaml").read_text().replace("profile: tiny", "profile: huge", 1)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="unknown profile 'huge'; choose one of tiny"):
        load_params(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_profile_says_where_it_runs(path):
    """Never by what params.yaml happens to hold; a GPU is used in the pinned image."""
    overlay = overlay_of(ROOT, path.stem)
    assert overlay["profile"] == path.stem
    assert set(overlay["container"]) >= {"engine", "device"}
    assert overlay["container"]["device"] == "cpu" or overlay["container"]["engine"] == "docker"


def test_used_values_follow_dotted_keys():
    params = load_params(ROOT)
    assert used(params, ("seed", "data.verifier", "select")) == {
        "seed": params.seed,
        "data.verifier": params.data.verifier,
        "select": params.select.model_dump(),
    }
