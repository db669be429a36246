"""The stages with engine.name vllm, in a small checkout: killed and resumed, through DVC, and against transformers."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages._params import read_yaml
from tests.test_pipeline_run import checkout, environment, killed, set_params, tldr

pytestmark = pytest.mark.vllm
NUM_TEST = 250


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `sample` was killed, damaged in one line and resumed, and then all stages ran through DVC."""
    folder = checkout(tmp_path_factory.mktemp("vllm"))
    engine = read_yaml(folder / "params.yaml")["engine"]
    vllm = engine["vllm"] | {"kv_cache_gb": 0.25}
    set_params(folder, {"engine.name": "vllm", "engine.vllm": vllm, "sample.samples_per_problem": 12})
    killed(folder, "sample", "system1.jsonl", 100)
    (log,) = (folder / ".tldr" / "work" / "sample").glob("*/system1.jsonl")
    kept = log.read_text()[: log.read_text().rfind("\n") + 1].splitlines(keepends=True)
    log.write_text("".join(kept[:50]) + kept[50][: len(kept[50]) // 2] + "\n" + "".join(kept[51:]))
    (folder / "kept.json").write_text(json.dumps(kept[:50] + kept[51:]))
    (folder / "resumed.txt").write_text(tldr(folder, "run", "sample").stderr)
    shutil.copyfile(log, folder / "resumed.jsonl")
    shutil.copyfile(folder / "artifacts" / "samples.parquet", folder / "resumed.parquet")
    (folder / "repro.txt").write_text(tldr(folder, "repro").stdout)
    return folder


def samples(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_a_killed_and_damaged_sample_run_repeats_unfinished_answers_only(run: Path) -> None:
    kept = json.loads((run / "kept.json").read_text())
    lines = (run / "resumed.jsonl").read_text().splitlines(keepends=True)
    assert lines[:50] + lines[51 : len(kept) + 1] == kept, "lines that were whole must stay"
    assert len(lines) == 50 * 12 + 1, "50 problems x 12 answers and the damaged line: none was drawn twice"
    rows = [row for row in samples(run / "resumed.parquet") if row["source"] == "system1"]
    found = {(row["problem_id"], row["sample_index"]): (row["token_ids"], row["seed"]) for row in rows}
    assert len(found) == len(rows) == 50 * 12
    for answer in map(json.loads, kept):
        assert found[answer["problem_id"], answer["sample_index"]] == (answer["token_ids"], answer["seed"])
    assert "has 1 damaged line;" in (run / "resumed.txt").read_text()


def test_samples_record_engine_reason_and_log_probability(run: Path) -> None:
    rows = samples(run / "artifacts" / "samples.parquet")
    assert {row["engine"] for row in rows} == {"vllm"}
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}
    assert all(row["cumulative_logprob"] < 0 and row["num_tokens"] == len(row["token_ids"]) for row in rows)
    order = [(row["source"], row["problem_id"], row["sample_index"]) for row in rows]
    assert len(set(order)) == len(order)
    assert [index for _, _, index in order[:12]] == list(range(12))


def test_every_stage_ran_on_vllm_and_says_so(run: Path) -> None:
    for name in ("sample", "schedule", "train", "base", "metrics"):
        assert json.loads((run / "results" / f"{name}.json").read_text())["engine"].startswith("vllm "), name
    metrics = json.loads((run / "results" / "metrics.json").read_text())
    assert metrics["baseline_mean_tokens"] > 100
    assert "overall" in (run / "repro.txt").read_text()


def test_the_evaluation_agrees_with_transformers_within_sampling_error(tmp_path: Path) -> None:
    """Two engines draw their noise differently, so their answers to the same questions are independent samples."""
    from tests.paths import ROOT

    folder = checkout(tmp_path)
    lines = (ROOT / "data" / "tiny" / "test.jsonl").read_text().splitlines(keepends=True)
    (folder / "data" / "tiny" / "test.jsonl").write_text("".join(lines[:: len(lines) // NUM_TEST]))
    found = {}
    for name in ("hf", "vllm"):
        set_params(folder, {"engine.name": name})
        tldr(folder, "run", "evaluate@base")
        (table,) = (folder / "results" / "questions").glob("base.csv")
        found[name] = question_means(table)
    for column in (0, 1):
        differences = [a[column] - b[column] for a, b in zip(found["hf"], found["vllm"], strict=True)]
        mean = sum(differences) / NUM_TEST
        error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (NUM_TEST - 1) / NUM_TEST)
        assert abs(mean) < 3.5 * error, (
            f"{('accuracy', 'tokens')[column]} differs by {mean:.4f}, standard error {error:.4f}"
        )
        assert error < (0.02, 8.0)[column], "the comparison must be able to fail"


def test_lm_eval_knows_the_backend_by_name(tmp_path: Path) -> None:
    """In a process of its own, as a user of lm-eval would: `simple_evaluate` with the registered name."""
    folder = checkout(tmp_path)
    set_params(folder, {"evaluate.samples": 1, "engine.processes": 1})
    program = """
import json, lm_eval, stages.engines.lm_eval_model
from lm_eval.tasks import TaskManager
if __name__ == "__main__":
    found = lm_eval.simple_evaluate(
        "tldr-vllm", "pretrained=models/tiny", tasks=["chains"], log_samples=True, bootstrap_iters=0,
        task_manager=TaskManager(include_path="own", include_defaults=False),
    )
    print(json.dumps([[s["resps"][0][0].num_tokens, s["resps"][0][0].finish_reason, s["exact_match"]]
                      for s in found["samples"]["chains"]]))
"""
    (folder / "own").mkdir()
    (folder / "own" / "chains.yaml").write_text(
        "task: chains\noutput_type: generate_until\ndataset_path: json\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {folder}/data/tiny/test.jsonl}}}}\n"
        "doc_to_text: '{{prompt}}'\ndoc_to_target: 'answer {{gold}}'\n"
        "metric_list: [{metric: exact_match, regexes_to_ignore: [' <eos>']}]\n"
    )
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**environment(), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == len((folder / "data" / "tiny" / "test.jsonl").read_text().splitlines())
    assert all(num_tokens > 5 and reason in {"stop", "length"} for num_tokens, reason, _ in rows)
    assert sum(correct for *_, correct in rows) / len(rows) > 0.9


def question_means(table: Path) -> list[tuple[float, float]]:
    """(accuracy, tokens) per question, by id."""
    header, *lines = table.read_text().splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    by_question: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_question.setdefault(row["question_id"], []).append(row)
    return [
        (sum(int(r["correct"]) for r in group) / len(group), sum(int(r["num_tokens"]) for r in group) / len(group))
        for _, group in sorted(by_question.items())
    ]
