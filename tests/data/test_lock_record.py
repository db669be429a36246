"""Results are described only where dvc.lock says that one run made them, with the settings of params.yaml."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from stages._errors import UserError
from stages._params import load_params
from stages.data.lock_record import checked_lock, made_by, used_by
from tests.paths import ROOT

PARAMS = load_params(ROOT)


def write(root: Path, *, deps: dict[str, str] | None = None, **params: object) -> Path:
    """A file of results, and the lock of the stage that made it and of one that read it."""
    (root / "results").mkdir()
    (root / "results" / "train.json").write_text("{}")
    made = hashlib.md5(b"{}").hexdigest()
    read = {"results/train.json": made} | (deps or {})
    stages = {
        "train": {"outs": [{"path": "results/train.json", "md5": made}], "params": {"params.yaml": params}},
        "evaluate": {"deps": [{"path": path, "md5": md5} for path, md5 in read.items()]},
    }
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    return root


def test_the_committed_lock_describes_the_committed_results():
    stages = checked_lock(ROOT, PARAMS)
    assert {"train", "evaluate@base", "evaluate@candidate"} <= stages.keys()
    assert made_by(stages)["artifacts/model"].endswith(".dir")
    assert used_by(stages, "train", "models/tiny") == used_by(stages, "sample", "models/tiny")


def test_without_a_lock_nothing_is_known(tmp_path):
    assert checked_lock(tmp_path, PARAMS) == {}
    assert used_by({}, "train", "models/tiny") is None


def test_settings_that_agree_pass_and_newer_keys_say_nothing(tmp_path):
    lock = checked_lock(write(tmp_path, seed=PARAMS.seed, train={"lr": PARAMS.train.lr, "gone": 1}), PARAMS)
    assert made_by(lock) == {"results/train.json": hashlib.md5(b"{}").hexdigest()}


@pytest.mark.parametrize(
    ("params", "key"), [({"seed": 77}, "seed"), ({"train": {"lr": 77}}, "train.lr"), ({"model.path": 77}, "model.path")]
)
def test_a_setting_that_was_changed_afterwards_is_refused(tmp_path, params, key):
    with pytest.raises(UserError, match=f"params.yaml has {key}: .*, and train ran with 77; run `tldr repro`"):
        checked_lock(write(tmp_path, **params), PARAMS)


def test_a_file_that_was_changed_afterwards_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "results" / "train.json").write_text("{ }")
    with pytest.raises(UserError, match="is not the file that dvc"):
        checked_lock(tmp_path, PARAMS)


def test_an_evaluation_of_an_older_training_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"evaluate ran on another results/train\.json than dvc\.lock"):
        checked_lock(write(tmp_path, deps={"results/train.json": "0" * 32}), PARAMS)


@pytest.mark.parametrize("text", ["", "stages: 1", "- a", "stages: {train: 1}"])
def test_a_lock_without_stages_is_refused(tmp_path, text):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(UserError, match="has no stages"):
        checked_lock(tmp_path, PARAMS)
