"""`tldr run evaluate --task`: real lm-eval and the transformers engine on a model of random weights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from stages.__main__ import main
from stages._params import read_yaml
from stages.cli.run import ENVIRONMENT
from tests.paths import ROOT
from tests.toy_model import save_random_model

Tldr = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLES, MAX_TOKENS = 2, 8
STOCK = """
task: stock
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parameters, tasks and questions, as the current folder."""
    import datasets

    for name, value in {**ENVIRONMENT, "TQDM_DISABLE": "1"}.items():
        monkeypatch.setenv(name, value)  # the command sets them for good
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".tldr" / "cache")
    monkeypatch.chdir(tmp_path)
    set_params(tmp_path)
    (tmp_path / "tasks").mkdir()
    for name in ("_template.yaml", "scoring.py", "tiny.yaml"):
        (tmp_path / "tasks" / name).write_text((ROOT / "tasks" / name).read_text())
    (tmp_path / "test.jsonl").write_text('{"id": "x", "prompt": "Q: 9 a + 8 ?", "gold": "6"}\n')
    (tmp_path / "questions.jsonl").write_text('{"q": "Q: 1 a + 1 ?", "a": "2"}\n{"q": "Q: 3 a * 2 ?", "a": "6"}\n')
    (tmp_path / "stock.yaml").write_text(STOCK)
    return tmp_path


def set_params(root: Path, **container: Any) -> None:
    document = read_yaml(ROOT / "params.yaml")
    document["model"]["path"] = "model"
    document["data"]["test"]["path"] = "test.jsonl"
    document["decode"]["max_tokens"] = MAX_TOKENS
    document["evaluate"] |= {"samples": SAMPLES, "budgets": [MAX_TOKENS]}
    document["engine"]["processes"] = 1
    document["container"] |= container
    (root / "params.yaml").write_text(json.dumps(document))


def here(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", *arguments], prog_name="tldr", env={"COLUMNS": "80", "NO_COLOR": "1"})


@pytest.mark.model
def test_tasks_are_evaluated_beside_the_pipeline(root: Path) -> None:
    save_random_model(root / "elsewhere")
    before = {path for path in root.rglob("*") if ".tldr" not in path.parts and "__pycache__" not in path.parts}
    arguments = ("evaluate", "--task", "tiny", "--task", "stock.yaml", "--model", "elsewhere")
    answer = here(*arguments, "--json")
    assert answer.exit_code == 0, answer.output
    tiny, stock = json.loads(answer.stdout)
    assert (tiny["task"], tiny["num_questions"], tiny["samples"]) == ("tiny", 1, SAMPLES)
    assert (stock["task"], stock["num_questions"], stock["model"]) == ("stock", 2, "elsewhere")
    assert stock["metrics"] == {"exact_match,none": {"value": 0.0, "se": 0.0}}
    assert tiny["metrics"] == {"correct": {"value": 0.0, "se": None}}
    assert tiny["model_digest"] in tiny["records"]
    records = pq.read_table(root / stock["records"]).to_pylist()
    assert len(records) == 2 * SAMPLES
    assert sum(record["num_tokens"] for record in records) / len(records) == stock["mean_tokens"]
    assert {record["finish_reason"] for record in records} <= {"stop", "length"}
    mine = (root / stock["records"]).parent
    assert json.loads((mine / "summary.json").read_text()) == stock
    assert str(root) not in (mine / "lm_eval.json").read_text()
    after = {path for path in root.rglob("*") if ".tldr" not in path.parts and "__pycache__" not in path.parts}
    assert after == before, "only .tldr is written"

    (store,) = (root / ".tldr" / "evaluations").glob("*/responses/*.jsonl")
    drawn = store.read_bytes()
    table = here(*arguments)
    assert table.exit_code == 0, table.output
    assert store.read_bytes() == drawn, "the answers of the first run are read"
    assert "answers, " not in table.stderr
    lines = table.stdout.splitlines()
    assert max(map(len, lines[:5])) <= 80
    assert any("exact_match none" in line for line in lines)
    assert stock["records"] in table.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sample", "--task", "tiny"], "--task goes with `tldr run evaluate`"),
        (["evaluate@base", "--task", "tiny"], "--task goes with `tldr run evaluate`"),
        (["sample", "--json"], "--model and --json go with `tldr run evaluate --task NAME`"),
        (["evaluate", "--model", "model"], "--model and --json go with `tldr run evaluate --task NAME`"),
    ],
)
def test_options_of_another_command_are_usage_errors(root: Path, arguments: list[str], part: str) -> None:
    answer = here(*arguments)
    assert answer.exit_code == 2
    assert part in answer.stderr
    assert not (root / ".tldr").exists()


def test_bad_input_is_one_sentence(root: Path) -> None:
    def refused(*arguments: str) -> str:
        answer = here("evaluate", "--task", *arguments)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert len(answer.stderr.splitlines()) == 1
        return answer.stderr

    assert "nosuch does not exist" in refused("tiny", "--model", "nosuch")
    save_random_model(root / "model")
    assert "The task file nosuch.yaml cannot be read" in refused("nosuch.yaml")
    assert "names the task tiny twice" in refused("tiny", "--task", "tasks/tiny.yaml")
    set_params(root, engine="docker")
    assert "container.engine is docker, but tasks given with --task run on the host" in refused("tiny")


def test_a_data_set_that_is_not_here_is_said_with_the_command_that_gets_it(root: Path, tldr: Tldr) -> None:
    save_random_model(root / "model")
    answer = tldr("run", "evaluate", "--task", "gsm8k", PYTHONPATH=str(ROOT), HF_HOME=str(root / "hub"))
    assert (answer.returncode, answer.stdout) == (2, "")
    (line,) = answer.stderr.splitlines()
    assert "The data set openai/gsm8k main of task gsm8k is not in the local cache, and evaluations run offline" in line
    assert "load_dataset('openai/gsm8k', 'main')" in line
