"""The lm-eval tasks: which questions they ask, how answers are scored, and that nothing stale or lost gets through."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from stages._errors import StageFailed, UserError
from stages._params import Params, check_params, read_yaml
from stages.data.lm_eval_load import load_tasks
from stages.data.lm_eval_output import check_records, check_verifier, portable_results, task_records
from stages.data.lm_eval_tasks import given_share, grade, has_thought, question_mean, score
from stages.engines.lm_eval_model import GeneratedText
from stages.verifier.grade import Grade
from tests.paths import ROOT

SETTINGS = {"until": [], "max_gen_toks": 20, "temperature": 1.0, "top_p": 1.0}
RIGHT, WRONG = "a 1 + 1 = 2 ; . </think> answer 2 <eos>", "a 1 + 1 = 3 ; . </think> answer 3 <eos>"


class ListLM(LM):
    """Answers the questions with given texts, in turn; a text without an end token was cut."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = texts
        self.asked: list[tuple[Any, ...]] = []

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.asked = [request.args for request in requests]
        return [self._answer(index) for index in range(len(requests))]

    def _answer(self, index: int) -> GeneratedText:
        text = self.texts[index % len(self.texts)]
        return GeneratedText(text, range(len(text.split())), "stop" if text.endswith("<eos>") else "length", index)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise AssertionError

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise AssertionError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    write_problems(tmp_path, {"id": "x", "prompt": "Q: 1 a + 1 ?", "gold": "2", "group": "length-1"})
    return tmp_path


def write_problems(root: Path, *rows: dict[str, Any], name: str = "test.jsonl") -> Path:
    path = root / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_params(**evaluate_block: Any) -> Params:
    document = read_yaml(ROOT / "params.yaml")
    document["data"] |= {"verifier": "exact", "test": {"path": "test.jsonl"}}
    document["evaluate"] |= {"tasks": ["tiny"], "samples": 3} | evaluate_block
    document["engine"]["processes"] = 1
    return check_params(document, "params.yaml")


def run(root: Path, model: ListLM, params: Params | None = None) -> Any:
    tasks = load_tasks(root, params or make_params(), SETTINGS)
    return evaluate(model, {"tasks": tasks, "groups": {}}, log_samples=True, bootstrap_iters=0)


def test_all_samples_of_a_question_are_kept_and_scored(root: Path) -> None:
    cut = "a 1 + 1 = 2 ; . </think> answer 2"
    model = ListLM(RIGHT, WRONG, cut)
    output = run(root, model)
    assert model.asked == [("Q: 1 a + 1 ?", SETTINGS)] * 3
    (sample,) = output["samples"]["tiny"]
    assert sample["correct"] == [1, 0, 0]
    assert sample["truncated"] == [0, 0, 1]
    assert sample["answer"] == ["2", "3", None]
    assert sample["no_think"] == sample["verifier_error"] == [0, 0, 0]
    assert sample["num_tokens"] == [len(text.split()) for text in (RIGHT, WRONG, cut)]
    metrics = output["results"]["tiny"]
    assert metrics["correct,all_samples"] == pytest.approx(1 / 3)
    assert metrics["answer,all_samples"] == pytest.approx(2 / 3)
    records = task_records("tiny", output["samples"]["tiny"])
    assert [record["correct"] for record in records] == [True, False, False]
    assert [(r["task"], r["question_id"], r["group"], r["sample_index"]) for r in records] == [
        ("tiny", "x", "length-1", index) for index in range(3)
    ]
    check_records("tiny", records, metrics, 3)


def test_prompt_and_gold_reach_the_model_and_the_verifier_as_written(root: Path) -> None:
    golds = ["2024-01-01", "007", "[1, 2]", "1e3", "null"]
    rows = [{"id": str(n), "prompt": f" {gold} {{{{ x }}}} \n\nu", "gold": gold} for n, gold in enumerate(golds)]
    write_problems(root, *rows)
    model = ListLM(RIGHT)
    samples = run(root, model, make_params(samples=1))["samples"]["tiny"]
    assert [arguments[0] for arguments in model.asked] == [row["prompt"] for row in rows]
    assert [(sample["target"], sample["doc"]["gold"]) for sample in samples] == [(gold, gold) for gold in golds]


def test_a_changed_problem_file_is_read_afresh_even_if_size_and_time_are_the_same(root: Path) -> None:
    def question(prompt: str) -> list[str]:
        path = write_problems(root, {"id": "x", "prompt": prompt, "gold": "2"})
        os.utime(path, (0, 0))
        return [doc["prompt"] for doc in load_tasks(root, make_params(), SETTINGS)["tiny"].eval_docs]

    assert question("one") == ["one"]
    assert question("two") == ["two"]


def test_loading_writes_no_dataset_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = root / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    load_tasks(root, make_params(), SETTINGS)
    assert not cache.exists()


def test_every_task_file_loads_and_every_score_has_an_aggregation(root: Path) -> None:
    """But the published benchmarks, whose files are not in the checkout."""
    names = [path.stem for path in sorted((root / "tasks").glob("[!_]*.yaml")) if not path.stem.startswith("tldr_")]
    assert "tiny" in names
    scores = score({}, [[(GeneratedText(RIGHT, [1], "stop", 1), Grade(True, "2", False))]])
    for name, task in load_tasks(root, make_params(tasks=names), SETTINGS).items():
        assert set(task.aggregation()) == set(scores), name
        assert task.config.repeats == 3


def test_a_task_may_name_a_problem_file_and_verifier_of_its_own(root: Path) -> None:
    write_problems(root, {"id": "y", "prompt": "other", "gold": "2"}, name="own.jsonl")
    own = "include: _template.yaml\ntask: own\ndataset_kwargs: {path: own.jsonl, verifier: math}\n"
    (root / "tasks" / "own.yaml").write_text(own)
    tasks = load_tasks(root, make_params(tasks=["own", "tiny"]), SETTINGS)
    assert [[doc["id"] for doc in task.eval_docs] for task in tasks.values()] == [["y"], ["x"]]
    verifiers = [task.config.filter_list[0]["filter"][1]["filter_fn"].keywords["verifier"] for task in tasks.values()]
    assert verifiers == ["math", "exact"]


def test_a_task_keeps_what_its_yaml_says_of_its_file(root: Path) -> None:
    """Keys of `dataset_kwargs` that only the task's own reader knows reach it."""
    reader = "from datasets import Dataset\n\ndef rows(path, columns, verifier, **_):\n"
    reader += "    row = {'id': 'z', 'prompt': path + columns['gold'] + verifier, 'gold': '2', 'group': ''}\n"
    (root / "tasks" / "reader.py").write_text(reader + "    return {'test': Dataset.from_list([row])}\n")
    (root / "tasks" / "own.yaml").write_text(
        "include: _template.yaml\ntask: own\ncustom_dataset: !function reader.rows\n"
        "dataset_kwargs: {path: data/x.parquet, columns: {gold: answer}}\n"
    )
    (doc,) = load_tasks(root, make_params(tasks=["own"]), SETTINGS)["own"].eval_docs
    assert doc["prompt"] == f"{root}/data/x.parquetanswerexact"


def test_a_benchmark_asks_for_a_boxed_answer_and_grades_it_as_mathematics(root: Path) -> None:
    """A file in columns of its own, through the template that the published benchmarks share."""
    write_problems(root, {"problem": r"What is $6 \cdot 7$, {{ n }}?", "answer": "042", "number": 3}, name="own.jsonl")
    (root / "tasks" / "own.yaml").write_text(
        "include: _benchmark.yaml\ntask: own\ndataset_kwargs: {path: own.jsonl, verifier: math, source: nowhere,\n"
        "  columns: {id: number, question: problem, gold: answer}, gold_format: integer}\n"
    )
    model = ListLM(*(rf"<think> 6 </think> \[ \boxed{{{answer}}} \] <eos>" for answer in ("42", "43", "42.0")))
    (sample,) = run(root, model, make_params(tasks=["own"]))["samples"]["own"]
    instruction = r"Please reason step by step, and put your final answer within \boxed{}."
    assert model.asked[0][0] == "What is $6 \\cdot 7$, {{ n }}?\n" + instruction
    assert (sample["doc"]["id"], sample["target"], sample["correct"]) == ("3", "42", [1, 0, 1])


def test_a_faulty_question_is_named(root: Path) -> None:
    write_problems(root, {"id": "x", "prompt": "p"})
    with pytest.raises(UserError, match=r'test.jsonl:1: field "gold" is missing'):
        load_tasks(root, make_params(), SETTINGS)


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        (RIGHT, "stop", True),
        ("</think> answer 2 <eos>", "stop", False),
        ("  </think> answer 2 <eos>", "stop", False),
        ("answer 2 <eos>", "stop", False),
        ("a 1 + 1 =", "length", True),
        ("a 1 + 1 = 2 ; </think> answer", "length", True),
    ],
)
def test_an_answer_without_a_closed_thought_has_not_thought_unless_it_was_cut(
    text: str, finish_reason: str, expected: bool
) -> None:
    assert has_thought(text, finish_reason) is expected


def test_an_answer_at_the_token_limit_is_wrong_whatever_the_verifier_says() -> None:
    answer = GeneratedText(RIGHT, [1], "length", 1)
    assert score({}, [[(answer, Grade(True, "2", False))]])["correct"] == [0]


def test_all_questions_are_graded_in_one_batch_and_keep_their_places() -> None:
    docs = [{"gold": "2"}, {"gold": "3"}]
    answers = [[GeneratedText(text, [1], "stop", 1) for text in (RIGHT, WRONG)] for _ in docs]
    graded = grade(answers, docs, verifier="exact", processes=1)
    assert [[verdict.correct for _, verdict in group] for group in graded] == [[True, False], [False, True]]
    assert [[answer for answer, _ in group] for group in graded] == answers


def test_means_are_over_questions() -> None:
    assert question_mean([[1, 0], [1, 1, 1, 1]]) == 0.75
    assert given_share([["2", None], ["3", "4"]]) == 0.75


def test_incomplete_doubled_or_differing_records_fail(root: Path) -> None:
    output = run(root, ListLM(RIGHT, WRONG))
    records, metrics = task_records("tiny", output["samples"]["tiny"]), output["results"]["tiny"]
    faults = {
        "has 2 answers instead of 3": (records[:2], metrics),
        "share a seed": ([record | {"seed": 1} for record in records], metrics),
        "reports correct = ": ([record | {"correct": False} for record in records], metrics),
        "reports num_tokens = ": ([record | {"token_ids": [1]} for record in records], metrics),
        "reports truncated = ": (records, metrics | {"truncated,all_samples": 0.5}),
    }
    for message, (rows, aggregates) in faults.items():
        with pytest.raises(StageFailed, match=message):
            check_records("tiny", rows, aggregates, 3)
    check_verifier("tiny", records, 0.0)
    with pytest.raises(StageFailed, match=r"no verdict on 33\.3% of the answers of task tiny"):
        check_verifier("tiny", [records[0] | {"verifier_error": True}, *records[1:]], 0.1)


def test_portable_results_hold_no_path_date_or_function(root: Path) -> None:
    tasks = load_tasks(root, make_params(), SETTINGS)
    kept = portable_results(run(root, ListLM(RIGHT)), tasks, 3, root)
    text = json.dumps(kept)
    assert str(root) not in text
    assert "0x" not in text
    assert kept["configs"]["tiny"]["dataset_kwargs"]["path"] == "test.jsonl"
    assert kept["results"]["tiny"]["correct,all_samples"] == 1.0
    assert "samples" not in kept
