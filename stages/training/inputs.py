"""What the stage `train` reads, checked before anything starts: labels, schedule, control set and the base's score on it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import read_json
from stages._params import Params
from stages.core.mixing import SOURCES
from stages.data.model_folder import read_config
from stages.training.control import ControlSet, Score, control_set
from stages.training.examples import Examples, read_examples


@dataclass(frozen=True)
class Inputs:
    """`base` is the base model's score on the control set, `schedule` the contents of artifacts/schedule.json."""

    model_path: Path
    control: ControlSet
    schedule: dict[str, Any]
    base: Score
    examples: Examples


def read_inputs(root: Path, params: Params) -> Inputs:
    """UserError or StageFailed, one sentence, for whatever cannot be trained on."""
    control = control_set(root, params)
    model_path = root / params.model.path
    _check_context(model_path, params.train.max_length)
    examples = read_examples(root / "artifacts" / "labels", params.train.max_length)
    return Inputs(model_path, control, _read_schedule(root, control), _read_control(root, control), examples)


def input_files(root: Path, params: Params) -> list[Path]:
    """Everything that the weights depend on, beside parameters and code."""
    labels = [root / "artifacts" / "labels" / f"{source}.jsonl" for source in SOURCES]
    control = [root / params.data.control.path, root / "artifacts" / "control_base.csv"]
    return [root / params.model.path, root / "artifacts" / "schedule.json", *control, *labels]


def _check_context(model_path: Path, max_length: int) -> None:
    context = read_config(model_path).get("max_position_embeddings")
    if context is not None and max_length > context:
        raise UserError(
            f"train.max_length = {max_length} is beyond the context of {model_path}, {context} tokens; lower it, and longer "
            "examples are left out."
        )


def _read_schedule(root: Path, control: ControlSet) -> dict[str, Any]:
    path = root / "artifacts" / "schedule.json"
    schedule: dict[str, Any] = read_json(path, "tldr run ratio-schedule")
    for name, value in control.hashes.items():
        if schedule.get(name) != value:
            what = "decode specification" if name == "decode_hash" else "control items"
            raise UserError(f"{path} was measured with another {what}; run `tldr repro ratio-schedule` and then train.")
    return schedule


def _read_control(root: Path, control: ControlSet) -> Score:
    path = root / "artifacts" / "control_base.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run `tldr run ratio-schedule` to make it.")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if [row["question_id"] for row in rows] != [problem.id for problem in control.problems]:
        raise UserError(f"{path} holds other questions than the control set; run `tldr repro ratio-schedule`.")
    return Score(tuple(float(row["accuracy"]) for row in rows), tuple(float(row["tokens"]) for row in rows), 0.0)
