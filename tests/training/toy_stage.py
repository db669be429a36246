"""The stage `train` on a toy: an untrained model of a fraction of the shipped one's size, eight control questions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from stages._io import write_csv, write_json, write_text
from stages._params import Params, load_params
from stages.cli.run import ENVIRONMENT
from stages.data.prompts import load_tokenizer, prompt_ids
from stages.training.control import control_set
from stages.training.examples import Example, Examples
from tests.paths import ROOT

TRAIN = {"max_steps": 6, "update_every": 2, "batch_size": 4, "micro_batch_size": 2, "warmup_steps": 1, "lr": 0.01}


def changed(params: Params, **blocks: dict[str, Any]) -> Params:
    """Some keys of some blocks replaced, checked anew; a nested block is merged."""
    document = params.model_dump(mode="json")
    for name, keys in blocks.items():
        for key, value in keys.items():
            old = document[name][key]
            document[name][key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return Params.model_validate(document)


def toy_params(**blocks: dict[str, Any]) -> Params:
    """The project's parameters at the toy's size."""
    toy = changed(
        load_params(ROOT),
        model={"path": "model"},
        decode={"max_tokens": 12},
        engine={"processes": 1},
        ratio={"control_samples": 1},
        train=TRAIN,
    )
    return changed(toy, **blocks)


def prepare(folder: Path, root: Path, params: Params, num_questions: int = 8) -> Params:
    """Make `root` a checkout in which `train` can run: what the stages before it leave, for the model in `folder`.

    The bounds are so far apart that every answer moves the ratio.
    """
    shutil.copytree(folder, root / "model")
    write_text(root / "params.yaml", json.dumps(params.model_dump(mode="json")))  # YAML 1.2 holds JSON
    lines = (ROOT / "data" / "tiny" / "control.jsonl").read_text().splitlines(keepends=True)
    write_text(root / "data" / "tiny" / "control.jsonl", "".join(lines[:: 512 // num_questions]))
    control = control_set(root, params)
    schedule = {
        **control.hashes,
        "weights": {"system1": 0.5, "system2": 0.5},
        "eta": 4.0,
        "bounds": {"short_tokens": 2.0, "long_tokens": 12.0, "short_accuracy": 0.0, "long_accuracy": 0.5},
    }
    write_json(root / "artifacts" / "schedule.json", schedule)
    rows = [{"question_id": problem.id, "accuracy": 0.0, "tokens": 9.0} for problem in control.problems]
    write_csv(root / "artifacts" / "control_base.csv", rows)
    tokenizer = load_tokenizer(root / "model")
    for source, length in (("system1", 4), ("system2", 9)):
        labels = [
            {
                "problem_id": f"{source}-{i}",
                "prompt_ids": list(prompt_ids(tokenizer, problem.prompt)),
                "token_ids": [5 + i] * length + [2],
            }
            for i, problem in enumerate(control.problems)
        ]
        write_text(root / "artifacts" / "labels" / f"{source}.jsonl", "".join(json.dumps(row) + "\n" for row in labels))
    return params


def start(root: Path, **popen: Any) -> subprocess.Popen[str]:
    """`tldr run train` in `root`, in a process of its own."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages", "run", "train"]
    return subprocess.Popen(
        command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **popen
    )


def work_of(root: Path) -> Path:
    """The only work folder."""
    (work,) = (path for path in (root / ".tldr" / "work" / "train").iterdir() if path.is_dir())
    return work


def results(root: Path) -> dict[str, bytes]:
    """Everything that the stage leaves, by path."""
    paths = [*(root / "artifacts" / "model").iterdir(), root / "results" / "ratio.csv", root / "results" / "train.json"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def toy_examples() -> Examples:
    short = [Example(f"s{i}", (1, 28, 5 + i), (30, 6 + i, 2)) for i in range(5)]
    long = [Example(f"l{i}", (1, 28, 5 + i), (30, 6 + i, 7, 8, 9, 10 + i, 2)) for i in range(7)]
    return Examples({"system1": short, "system2": long}, {"system1": 0.0, "system2": 0.0})
