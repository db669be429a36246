"""Stage `evaluate` as a whole: its files, their bytes, and what it refuses; a toy engine except in the last test."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages import evaluate
from stages._errors import Interrupted, StageFailed, UserError
from stages._params import Params, check_params, read_yaml
from stages.engines.base import DecodeSpec, Engine, Request, Response, answer_seed
from stages.engines.shards import Shard
from stages.tiny.chains import BOS, EOS, VOCABULARY, parse_prompt, prompt_text, random_chain, solve, write_response
from tests.paths import ROOT
from tests.toy_model import save_random_model

NUM_QUESTIONS, NUM_SAMPLES, MAX_TOKENS = 24, 3, 120
COLUMNS = ["task", "group", "question_id", "sample_index", "correct", "num_tokens", "truncated", "no_think"]


class GeneratorEngine:
    """Writes traces as the tiny reasoner learns them, with up to `max_checks` checks; stops after `num_answers`."""

    name = "generator"

    def __init__(self, max_checks: int, num_answers: int = 10**9) -> None:
        self.max_checks, self.left = max_checks, num_answers
        self.asked: list[tuple[str, int]] = []

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        for request in reversed(list(requests)):
            if self.left == 0:
                raise Interrupted("Stopped.")
            self.left -= 1
            self.asked.append((request.problem_id, request.sample_index))
            key = answer_seed(seed, request.problem_id, request.sample_index)
            words = [VOCABULARY[index] for index in request.prompt_ids]
            assert words[0] == BOS
            assert words[-1] == "<think>"
            rng = Random(key)
            trace, _ = write_response(parse_prompt(" ".join(words[1:-1])), rng.randint(0, self.max_checks), rng)
            ids = tuple(VOCABULARY.index(word) for word in [*trace, EOS])
            reason = "length" if len(ids) > spec.max_tokens else "stop"
            yield Response(request.problem_id, request.sample_index, key, ids[: spec.max_tokens], reason)

    def load(self, model_path: Path) -> None: ...

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None: ...


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def root(tmp_path: Path, model_folder: Path) -> Path:
    return workspace(tmp_path / "checkout", model_folder)


def workspace(root: Path, model_folder: Path) -> Path:
    shutil.copytree(ROOT / "tasks", root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(model_folder, root / "models" / "tiny")
    shutil.copytree(model_folder, root / "artifacts" / "model")
    (root / "results").mkdir()
    (root / "results" / "train.json").write_text('{"selected_step": 32, "selection_fallback": 1, "other": 5}')
    write_problems(root, NUM_QUESTIONS)
    return root


def write_problems(root: Path, num_questions: int) -> None:
    rng = Random(7)
    chains = [random_chain(1 + index % 8, rng) for index in range(num_questions)]
    rows = [
        {"id": f"q{index}", "prompt": prompt_text(chain), "gold": str(solve(chain)), "group": f"length-{chain.length}"}
        for index, chain in enumerate(chains)
    ]
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_params(max_tokens: int = MAX_TOKENS, **evaluate_block: Any) -> Params:
    document = read_yaml(ROOT / "params.yaml")
    document["model"]["path"] = "models/tiny"
    document["data"] |= {"verifier": "exact", "test": {"path": "test.jsonl"}}
    document["decode"] |= {"temperature": 1.0, "top_p": 1.0, "max_tokens": max_tokens}
    evaluate_block = {"budgets": [max_tokens // 2, max_tokens]} | evaluate_block
    document["evaluate"] |= {"tasks": ["tiny"], "samples": NUM_SAMPLES, "resamples": 1000} | evaluate_block
    document["engine"]["processes"] = 1
    return check_params(document, "params.yaml")


def run_both(root: Path, params: Params) -> None:
    evaluate.main(root, params, "base", lambda *_: GeneratorEngine(6))
    evaluate.main(root, params, "candidate", lambda *_: GeneratorEngine(1))


def written(root: Path) -> dict[str, bytes]:
    paths = [*(root / "results").rglob("*"), *(root / "artifacts" / "evaluations").rglob("*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file()}


def table(root: Path, which: str) -> list[dict[str, str]]:
    with (root / "results" / "questions" / f"{which}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_both_items_write_their_files_and_the_files_agree(root: Path) -> None:
    run_both(root, make_params())
    for which in evaluate.ITEMS:
        records = pq.read_table(root / "artifacts" / "evaluations" / which / "responses.parquet").to_pylist()
        rows = table(root, which)
        assert len(records) == len(rows) == NUM_QUESTIONS * NUM_SAMPLES
        assert list(rows[0]) == COLUMNS
        assert [(row["question_id"], row["sample_index"]) for row in rows] == [
            (f"q{question}", str(sample)) for question in range(NUM_QUESTIONS) for sample in range(NUM_SAMPLES)
        ]
        assert [int(row["correct"]) for row in rows] == [record["correct"] for record in records]
        for record in records:
            assert record["num_tokens"] == len(record["token_ids"])
            assert record["text"].split() == [VOCABULARY[index] for index in record["token_ids"]]
            assert record["seed"] == answer_seed(1, f"tiny/{record['question_id']}", record["sample_index"])
            assert record["finish_reason"] == "stop" or not record["correct"]
        raw = json.loads((root / "artifacts" / "evaluations" / which / "lm_eval.json").read_text())
        accuracy = sum(record["correct"] for record in records) / len(records)
        assert raw["results"]["tiny"]["correct,all_samples"] == pytest.approx(accuracy)
    assert any(row["truncated"] == "1" for row in table(root, "base"))


def test_the_budget_curve_ends_at_the_accuracy_of_the_run(root: Path) -> None:
    run_both(root, make_params(budgets=[30, MAX_TOKENS]))
    for which, name in (("base", "base"), ("candidate", "metrics")):
        with (root / "results" / "budget" / f"{which}.csv").open(newline="") as stream:
            short, whole = csv.DictReader(stream)
        metrics = json.loads((root / "results" / f"{name}.json").read_text())
        prefix = "candidate_" if which == "candidate" else ""
        for key in ("accuracy", "mean_tokens", "truncation_rate"):
            assert float(whole[key]) == pytest.approx(metrics[prefix + key], abs=1e-12)
        assert float(short["mean_tokens"]) < float(whole["mean_tokens"])
        assert float(short["accuracy"]) < float(whole["accuracy"])
        assert (short["task"], short["budget"], whole["budget"]) == ("tiny", "30", str(MAX_TOKENS))


def test_a_task_that_is_not_ours_stands_beside_ours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root / ".tldr" / "cache")
    write_stock_task(root)
    run_both(root, make_params(tasks=["stock.yaml", "tiny"]))
    rows = {(row["task"], row["question_id"], row["sample_index"]): row for row in table(root, "base")}
    assert len(rows) == 2 * NUM_QUESTIONS * NUM_SAMPLES
    records = pq.read_table(root / "artifacts" / "evaluations" / "base" / "responses.parquet").to_pylist()
    stock = [record for record in records if record["task"] == "stock"]
    assert [record["seed"] for record in stock[:NUM_SAMPLES]] == [
        answer_seed(1, "stock/0", n) for n in range(NUM_SAMPLES)
    ]
    assert all(record["num_tokens"] == len(record["token_ids"]) for record in stock)
    assert {record["finish_reason"] for record in stock} == {"stop", "length"}
    assert not any(record["correct"] for record in stock if record["finish_reason"] == "length")
    raw = json.loads((root / "artifacts" / "evaluations" / "base" / "lm_eval.json").read_text())
    accuracy = sum(record["correct"] for record in stock) / len(stock)
    assert raw["results"]["stock"]["exact_match,number"] == pytest.approx(accuracy)
    assert 0.3 < accuracy < 1
    assert str(root) not in json.dumps(raw["results"])


def test_a_task_of_partial_scores_is_refused_and_nothing_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root / ".tldr" / "cache")
    write_stock_task(root, "process_results: !function partly.score\n")
    (root / "partly.py").write_text("def score(doc, results):\n    return {'exact_match': 0.5}\n")
    before = written(root)
    with pytest.raises(UserError, match="Task stock scores answers with more than 0 and 1"):
        evaluate.main(root, make_params(tasks=["stock.yaml"]), "base", lambda *_: GeneratorEngine(6))
    assert written(root) == before


def write_stock_task(root: Path, more: str = "") -> None:
    """The same questions through lm-eval's own reader, filter and metric."""
    (root / "stock.yaml").write_text(
        f"task: stock\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {root}/test.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{prompt}}'\ndoc_to_target: '{{gold}}'\n"
        "process_docs: !function reader.renamed\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        "filter_list: [{name: number, filter: [{function: regex, regex_pattern: 'answer (\\d+)'}, "
        f"{{function: take_first}}]}}]\n{more}"
    )
    (root / "reader.py").write_text("def renamed(data):\n    return data.remove_columns(['id', 'group'])\n")


def test_the_metrics_are_flat_numbers_and_name_the_checkpoint(root: Path) -> None:
    run_both(root, make_params())
    metrics = json.loads((root / "results" / "metrics.json").read_text())
    assert (metrics["selected_step"], metrics["selection_fallback"]) == (32, 1)
    assert metrics.pop("engine").startswith("hf ")
    place = {name: metrics.pop(name) for name in ("container_engine", "container_device", "container_image")}
    assert place == {"container_engine": "host", "container_device": "cpu", "container_image": None}
    assert all(value is None or isinstance(value, (int, float)) for value in metrics.values())
    assert "other" not in metrics


def test_two_cold_runs_in_two_places_write_the_same_bytes(root: Path, tmp_path: Path, model_folder: Path) -> None:
    other = workspace(tmp_path / "elsewhere" / "checkout", model_folder)
    run_both(root, make_params())
    run_both(other, make_params())
    first, second = written(root), written(other)
    assert first == second
    assert not [name for name, content in first.items() if str(tmp_path).encode() in content]
    assert "results/metrics.json" in first


def test_an_interrupted_run_leaves_no_output_and_draws_the_other_answers_only(root: Path, tmp_path: Path) -> None:
    first, second, whole = GeneratorEngine(6, num_answers=10), GeneratorEngine(6), GeneratorEngine(6)
    before = written(root)
    with pytest.raises(Interrupted):
        evaluate.main(root, make_params(), "base", lambda *_: first)
    assert written(root) == before
    evaluate.main(root, make_params(), "base", lambda *_: second)
    assert len(first.asked) == 10
    assert not set(first.asked) & set(second.asked)
    assert len(second.asked) == NUM_QUESTIONS * NUM_SAMPLES - 10
    resumed = written(root)
    evaluate.main(root, make_params(), "base", lambda *_: whole)
    assert len(whole.asked) == NUM_QUESTIONS * NUM_SAMPLES, "finished work must not be taken for the next run's"
    assert written(root) == resumed


def test_three_jobs_give_what_one_gives(root: Path, tmp_path: Path, model_folder: Path) -> None:
    other = workspace(tmp_path / "elsewhere" / "checkout", model_folder)
    params = make_params()
    run_both(other, params)
    before = written(root)
    jobs = []
    for index in range(3):
        jobs.append(GeneratorEngine(6))
        evaluate.draw_shard(root, params, "base", Shard(index, 3), lambda *_, engine=jobs[-1]: engine)
    assert written(root) == before, "a shard writes no outputs"
    assert sum(len(job.asked) for job in jobs) == len({key for job in jobs for key in job.asked})
    assert [len(job.asked) for job in jobs] == [NUM_QUESTIONS * NUM_SAMPLES // 3] * 3
    merging = GeneratorEngine(6, num_answers=0)  # draws nothing
    evaluate.main(root, params, "base", lambda *_: merging)
    evaluate.main(root, params, "candidate", lambda *_: GeneratorEngine(1))
    assert written(root) == written(other)


def test_a_job_that_was_stopped_goes_on_and_one_that_was_lost_is_made_up_for(root: Path) -> None:
    params, total = make_params(), NUM_QUESTIONS * NUM_SAMPLES
    stopped, again, rest = GeneratorEngine(6, num_answers=10), GeneratorEngine(6), GeneratorEngine(6)
    with pytest.raises(Interrupted):
        evaluate.draw_shard(root, params, "base", Shard(0, 2), lambda *_: stopped)
    evaluate.draw_shard(root, params, "base", Shard(0, 2), lambda *_: again)
    evaluate.main(root, params, "base", lambda *_: rest)
    assert [len(engine.asked) for engine in (stopped, again, rest)] == [10, total // 2 - 10, total // 2]
    assert len({*stopped.asked, *again.asked, *rest.asked}) == total


def test_changed_problems_are_asked_anew(root: Path) -> None:
    evaluate.main(root, make_params(), "base", lambda *_: GeneratorEngine(6))
    write_problems(root, 8)
    evaluate.main(root, make_params(), "base", lambda *_: GeneratorEngine(6))
    assert len(table(root, "base")) == 8 * NUM_SAMPLES


def test_the_candidate_is_only_compared_with_the_same_questions_and_samples(root: Path) -> None:
    def candidate(message: str, params: Params) -> None:
        engine = GeneratorEngine(1)
        with pytest.raises(UserError, match=message):
            evaluate.main(root, params, "candidate", lambda *_: engine)
        assert not engine.asked

    candidate(r"results/questions/base.csv does not exist; run `tldr repro evaluate@base`", make_params())
    evaluate.main(root, make_params(), "base", lambda *_: GeneratorEngine(6))
    candidate(r"base.csv does not hold evaluate.samples = 2 answers to each question", make_params(samples=2))
    candidate(r"base.csv does not hold evaluate.samples = 4 answers to each question", make_params(samples=4))
    write_problems(root, NUM_QUESTIONS + 1)
    candidate("base.csv holds other questions than are asked now", make_params())
    (root / "results" / "questions" / "base.csv").write_text("task,group\n")
    candidate(r"column missing.*remove the file and run `tldr repro evaluate@base`", make_params())


def test_missing_models_results_and_names_are_one_sentence(root: Path) -> None:
    def refuse(which: str, message: str, **block: Any) -> None:
        with pytest.raises(UserError, match=message) as caught:
            evaluate.main(root, make_params(**block), which, lambda *_: GeneratorEngine(1))
        assert "\n" not in str(caught.value)

    refuse("both", 'evaluate has no item "both"; use evaluate@base or evaluate@candidate')
    refuse("base", "evaluate.tasks names the task tiny twice", tasks=["tiny", "tasks/tiny.yaml"])
    (root / "results" / "train.json").write_text("{}")
    refuse("candidate", r"results/train.json does not say selected_step; run `tldr repro train`")
    (root / "results" / "train.json").unlink()
    refuse("candidate", r"train.json does not exist; run `tldr repro train`")
    shutil.rmtree(root / "artifacts" / "model")
    refuse("candidate", r"artifacts/model does not exist; run `tldr repro train`")
    shutil.rmtree(root / "models")
    refuse("base", r"models/tiny does not exist; set model.path")


def test_a_task_that_aggregates_something_else_fails_the_stage(root: Path) -> None:
    scoring = root / "tasks" / "scoring.py"
    scoring.write_text(scoring.read_text() + "\n\ndef question_mean(values):\n    return max(map(max, values))\n")
    with pytest.raises(StageFailed, match="lm-eval reports correct = 1 for task tiny, but its answers give 0"):
        evaluate.main(root, make_params(), "base", lambda *_: GeneratorEngine(6))
    assert not (root / "results" / "questions").exists()


@pytest.mark.model
def test_the_transformers_engine_evaluates_a_random_model(root: Path) -> None:
    write_problems(root, 4)
    evaluate.main(root, make_params(max_tokens=8), "base")
    records = pq.read_table(root / "artifacts" / "evaluations" / "base" / "responses.parquet").to_pylist()
    assert len(records) == 4 * NUM_SAMPLES
    assert not any(record["correct"] for record in records)
    assert all(record["finish_reason"] == ("stop" if record["text"].endswith(EOS) else "length") for record in records)
    assert len({record["text"] for record in records}) > 4
