"""Two arms with one seed through the real pipeline at a reduced size, the report without tuning before it."""

from __future__ import annotations

import csv
import json
import subprocess

import pytest

from tests.ablation.test_ablate import leftovers
from tests.ablation.test_plan import PLAN
from tests.test_pipeline_run import checkout, set_params, tldr

pytestmark = [pytest.mark.pipeline, pytest.mark.model]
ARMS = {"half": {"schedule": "static", "init": 0.5}, "paper": {"schedule": "dynamic", "controller": "paper"}}


def totals(path):
    """Accuracy and mean tokens of a question table, and its questions."""
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    correct, tokens = (sum(int(row[name]) for row in rows) for name in ("correct", "num_tokens"))
    return correct / len(rows), tokens / len(rows), {row["question_id"] for row in rows}


def test_two_arms_share_sampling_and_the_base_and_answer_the_fresh_test_set(tmp_path):
    folder = checkout(tmp_path)
    set_params(folder, {"train.max_steps": 3, "evaluate.samples": 1})
    (folder / "ablation.yaml").write_text(json.dumps(PLAN | {"arms": ARMS, "report_seeds": [6]}))
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, "commit", "-qam", "plan"], cwd=folder, check=True)
    tldr(folder, "ablate", "report", "--allow-missing")
    (state,) = (folder / ".tldr" / "ablation").glob("*/report")
    runs = {arm: state / arm / "6" for arm in ("_shared", *ARMS)}
    ran = {arm: json.loads((run / "run.json").read_text())["ran"] for arm, run in runs.items()}
    assert sorted(ran["_shared"]) == ["evaluate@base", "label-by-length", "sample"]
    assert ran["half"] == ran["paper"] == ["ratio-schedule", "train", "evaluate@candidate"]
    base = {arm: (runs[arm] / "results" / "questions" / "base.csv").read_bytes() for arm in ARMS}
    assert base["half"] == base["paper"]
    page = (folder / "docs" / "ablation.md").read_text()
    for arm in ARMS:
        accuracy, tokens, questions = totals(runs[arm] / "results" / "questions" / "candidate.csv")
        _, base_tokens, asked = totals(runs[arm] / "results" / "questions" / "base.csv")
        assert questions == asked and all(name.startswith("fresh-2-") for name in questions)
        line = next(line for line in page.splitlines() if line.strip("| ").startswith(f"{arm} |"))
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        assert cells[1:5] == [
            *("1", f"{tokens:.1f}", f"{100 * (1 - tokens / base_tokens):.1f}"),
            f"{100 * accuracy:.2f}",
        ]
    assert leftovers(folder) == []
    before = page
    assert "0 of 3 runs are missing" in tldr(folder, "ablate", "report", "--allow-missing").stderr
    assert (folder / "docs" / "ablation.md").read_text() == before
