"""The r1-7b profile from end to end on two CPU cores: its architecture, templates, sources and tasks in miniature.

It proves plumbing, nothing else: the models know one answer, and no figure of this run is a result of the method.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages._params import read_yaml
from stages.data.problems import read_problems
from tests.mini_r1 import ASSISTANT, BOS, CLOSE, EOS, OPEN, save_mini, text_ids
from tests.paths import SHARED_DATA
from tests.test_pipeline_run import checkout, killed, set_params, tldr

pytestmark = [pytest.mark.pipeline, pytest.mark.model]
INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
REAL = SHARED_DATA / "benchmarks" / "aimo_validation_amc.parquet"
SMALLER: dict[str, object] = {
    "model.dtype": "float32",
    "decode.max_tokens": 64,
    "container.engine": "host",
    "container.device": "cpu",
    "engine.name": "hf",
    "engine.processes": 2,
    "label.min_tokens": 10,
    "label.min_thought_tokens": 3,
    "ratio.control_samples": 2,
    "ratio.bound_samples": 2,
    "train.max_steps": 4,
    "train.update_every": 2,
    "train.batch_size": 8,
    "train.lr": 0.001,
    "train.warmup_steps": 1,
    "train.max_length": 400,
    "train.attention": "sdpa",
    "train.launch": {"kind": "single", "num_processes": 1, "num_machines": 1},
    "select.margin": 0.3,
    "evaluate.samples": 2,
    "evaluate.budgets": [16, 32, 64],
    "evaluate.resamples": 1000,
}


def question(number: int) -> str:
    return f"What is the number after six, in case {number}?"


def numbers(first: int, count: int) -> list[str]:
    return [question(number) for number in range(first, first + count)]


def publish(folder: Path) -> None:
    """Files in their publishers' forms, all with the answer 7; one control problem is a System-2 prompt as well."""
    folder.mkdir()
    easy = [{"question": text, "answer": "Count.\n#### 7"} for text in numbers(0, 40)]
    pq.write_table(pa.Table.from_pylist(easy), folder / "gsm8k_train.parquet")
    hard = [{"question": text, "solution": r"So $\boxed{7}$.", "cot_type": "math"} for text in numbers(1000, 30)]
    pq.write_table(pa.Table.from_pylist(hard), folder / "s1k.parquet")
    control = [{"query": text, "ref_answer": "7"} for text in [question(1000), *numbers(2000, 60)]]
    (folder / "aime_1983_2023.jsonl").write_text("".join(json.dumps(row) + "\n" for row in control))
    test = [{"id": str(place), "problem": text, "answer": "7"} for place, text in enumerate(numbers(3000, 30))]
    (folder / "aime25.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    if REAL.is_file():
        shutil.copy(REAL, folder)


def unpin(path: Path, copies: Path) -> None:
    """data/sources.yaml with the digests of the made files; what was really published keeps its own."""
    document = read_yaml(path)
    for file in document["files"].values():
        copy = copies / Path(file["path"]).name
        if copy.exists() and copy.name != REAL.name:
            file["sha256"] = hashlib.sha256(copy.read_bytes()).hexdigest()
    path.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after `tldr profile use`, `tldr fetch --from` and `tldr repro`, sampling killed once in between."""
    folder, copies = checkout(tmp_path_factory.mktemp("r1")), tmp_path_factory.mktemp("published") / "copies"
    publish(copies)
    unpin(folder / "data" / "sources.yaml", copies)
    tldr(folder, "profile", "use", "r1-7b", "--force")
    tasks = ["tldr_aime25", *(["tldr_amc23"] if REAL.is_file() else [])]
    set_params(folder, SMALLER | {"evaluate.tasks": tasks})
    prompts = [text + INSTRUCTION for first in (0, 1000, 2000) for text in numbers(first, 20)]
    save_mini(folder / "models" / "r1-7b", "r1", prompts)
    save_mini(folder / "models" / "qwen2.5-7b-instruct", "chat", prompts)
    (folder / "fetch.txt").write_text(tldr(folder, "fetch", "--from", str(copies)).stdout)
    killed(folder, "sample", "control.jsonl", 3)
    (folder / "repro.txt").write_text(tldr(folder, "repro").stdout)
    return folder


def results(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results" / f"{name}.json").read_text())
    return found


def test_the_sets_hold_no_problem_twice_and_ask_with_one_instruction(rehearsal: Path) -> None:
    assert (
        "data.control: data/math/control.jsonl made, 60 of 61 problems\n  1 removed, the same as in system2"
        in (rehearsal / "fetch.txt").read_text()
    )
    for role in ("system1", "system2", "control", "test"):
        assert all(p.prompt.endswith(INSTRUCTION) for p in read_problems(rehearsal / f"data/math/{role}.jsonl"))


def test_prompts_and_targets_are_those_of_the_template(rehearsal: Path) -> None:
    (row,) = pq.read_table(rehearsal / "artifacts" / "samples.parquet").slice(0, 1).to_pylist()
    asked = text_ids(question(0) + INSTRUCTION)
    assert row["prompt_ids"] == [BOS, BOS + 2, *asked, ASSISTANT, OPEN, *text_ids("\n")]
    lines = (rehearsal / "artifacts" / "labels" / "system1.jsonl").read_text().splitlines()
    answers = [json.loads(line)["token_ids"] for line in lines]
    assert len(answers) > 30
    for ids in answers:
        assert ids[ids.index(CLOSE) :] == [CLOSE, *text_ids(r"\boxed{7}"), EOS]


def test_every_stage_ran_and_its_figures_are_of_the_right_form(rehearsal: Path) -> None:
    assert json.loads(tldr(rehearsal, "status", "--json").stdout)["stages"]["train"]["state"] == "up to date"
    schedule, train = results(rehearsal, "schedule"), results(rehearsal, "train")
    assert schedule["long_tokens"] > schedule["short_tokens"] > 5, "the short model answers at once"
    assert schedule["long_accuracy"] > schedule["short_accuracy"] > 0.2
    assert train["selected_step"] in (2, 4) and 0 < train["short_share_mean"] < 1
    base, metrics = results(rehearsal, "base"), results(rehearsal, "metrics")
    assert base["mean_tokens"] == metrics["baseline_mean_tokens"] > 10
    assert metrics["baseline_num_questions"] == 30 + (40 if REAL.is_file() else 0)
    printed = (rehearsal / "repro.txt").read_text()
    assert "tldr_aime25" in printed and "Profile r1-7b" in printed
    assert (rehearsal / "artifacts" / "model" / "model.safetensors").is_file()


def test_the_plan_reads_the_models_that_are_there(rehearsal: Path) -> None:
    found = json.loads(tldr(rehearsal, "plan", "--json").stdout)
    assert found["downloads"] == {} and found["load"]["control"]["number"] == 120
    assert found["load"]["control"]["measured"] and found["stages"][0]["name"] == "sample"
