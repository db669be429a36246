"""A small checkout with the results of a finished run: two models, what steered the training, and what they wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from stages._io import write_csv, write_json
from stages.evidence.questions import COLUMNS, QuestionRow, write_questions
from tests.paths import ROOT

NUM_QUESTIONS = 40
PLACE = {"engine": "toy 1.0", "container_engine": "host", "container_device": "cpu", "container_image": None}
HOSTILE = "</pre><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>&amp;"
Rows = list[QuestionRow]


def answers(
    tokens: int,
    lost: int = 0,
    *,
    num: int = NUM_QUESTIONS,
    repeats: int = 2,
    num_groups: int = 2,
    prefix: str = "",
    task: str = "tiny",
) -> Rows:
    """Answers to `num` questions, of which the first `lost` have a wrong last one; every 7th question is always wrong."""
    return [
        QuestionRow(
            task=task,
            group=f"{prefix}length-{q % num_groups + 1}",
            question_id=f"{prefix}q{q}",
            sample_index=sample,
            correct=q % 7 != 6 and not (q < lost and sample == repeats - 1),
            num_tokens=tokens + q % 9,
            truncated=False,
            no_think=False,
        )
        for q in range(num)
        for sample in range(repeats)
    ]


def write_table(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_questions(path, rows)
    return path


def control_row(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "short_share": 0.5 + step / 200,
        "example_share": 0.5,
        "token_share": 0.25,
        "mean_tokens": 100.0 - step,
        "mean_tokens_se": 2.0,
        "accuracy": 0.9,
        "accuracy_se": 0.01,
    }


def write_toy(root: Path, base: Rows, candidate: Rows) -> Path:
    """The tracked results only, as on a fresh clone."""
    root.mkdir(parents=True)
    text = (ROOT / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("resamples: 10000", "resamples: 1000"))
    shutil.copytree(ROOT / "profiles", root / "profiles")
    results = root / "results"
    write_table(results / "questions" / "base.csv", base)
    write_table(results / "questions" / "candidate.csv", candidate)
    write_json(results / "train.json", {"selected_step": 32, "selection_fallback": 0} | PLACE)
    for name in ("base", "metrics"):
        write_json(results / f"{name}.json", PLACE)
    tokens = {"long_tokens": 100.0, "long_tokens_se": 3.0, "short_tokens": 50.0, "short_tokens_se": 2.0}
    accuracy = {"long_accuracy": 0.92, "long_accuracy_se": 0.01, "short_accuracy": 0.89}
    write_json(results / "schedule.json", tokens | accuracy)
    write_csv(results / "ratio.csv", [control_row(step) for step in (16, 32, 48)])
    return root


def write_responses(root: Path, item: str, rows: Rows, text: str) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    written = {"text": text, "answer": "2", "finish_reason": "stop", "thinking": True}
    records = [{name: getattr(row, name) for name in COLUMNS} | written for row in rows]
    folder = root / "artifacts" / "evaluations" / item
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(records), folder / "responses.parquet")
    settings = {"dataset_kwargs": {"path": "data/tiny/test.jsonl"}}
    write_json(folder / "lm_eval.json", {"configs": {row.task: settings for row in rows}})


def write_artifacts(root: Path, base: Rows, candidate: Rows, text: str = "a 1 + 1 = 2 ; answer 2") -> Path:
    """What the run leaves beside the tracked results; every answer reads `text`."""
    write_responses(root, "base", base, text)
    write_responses(root, "candidate", candidate, text)
    record = {"stage": "train", "seed": 1, "python": "3.11.7", "libraries": {"torch": "9.9.9"}, "weights": "w0"}
    for name in ("train", "evaluate-base"):
        write_json(root / "artifacts" / "provenance" / f"{name}.json", record)
    problem = {"id": "q0", "prompt": f"Q: {HOSTILE} ?", "gold": "2"}
    path = root / "data" / "tiny" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(problem) + "\n")
    return root
