"""Tasks that are not built on our template: found by name or path, answered k times, scored one answer at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from stages._errors import UserError
from stages._params import Params, check_params, read_yaml
from stages.data.lm_eval_load import load_tasks
from stages.data.lm_eval_output import check_verdicts, checked_records, portable_results
from stages.data.lm_eval_stock import question_scores
from stages.engines.lm_eval_model import GeneratedText
from tests.paths import ROOT

SETTINGS = {"until": [], "max_gen_toks": 20, "temperature": 1.0, "top_p": 1.0}
SAMPLES = 3
RIGHT, WRONG = "a 1 + 1 = 3 ; </think> answer 2 <eos>", "a 1 + 1 = 2 ; </think> answer 3 <eos>"
CUT = "a 1 + 1 = 2 ; </think> answer 2"
TASK = """
task: chains
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: generate_until
test_split: test
doc_to_text: "Q: {{q}}"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["Q:"], max_gen_toks: 7, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: number, filter: [{function: regex, regex_pattern: 'answer (\\d+)'}, {function: take_first}]}
  - {name: whole, filter: [{function: take_first}]}
"""


class TextsLM(LM):
    """Answers the k-th request with the k-th text; one without an end token was cut."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = texts
        self.asked: list[tuple[Any, ...]] = []

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.asked = [request.args for request in requests]
        return [self._answer(index, self.texts[index % len(self.texts)]) for index in range(len(requests))]

    def _answer(self, index: int, text: str) -> GeneratedText:
        return GeneratedText(text, range(len(text.split())), "stop" if text.endswith("<eos>") else "length", index)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise AssertionError

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise AssertionError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "tasks").mkdir()
    write_questions(tmp_path, ("1 + 1", "2"), ("1 + 2", "3"))
    write_task(tmp_path)
    return tmp_path


def write_questions(root: Path, *rows: tuple[str, str]) -> None:
    """All with the same id, as published files have it."""
    lines = [json.dumps({"id": 1, "q": question, "a": answer}) + "\n" for question, answer in rows]
    (root / "questions.jsonl").write_text("".join(lines))


def write_task(root: Path, *changes: tuple[str, str], name: str = "chains.yaml") -> None:
    text = TASK.replace("DATA", str(root / "questions.jsonl"))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (root / name).write_text(text)


def make_params(*tasks: str, seed: int = 1) -> Params:
    document = read_yaml(ROOT / "params.yaml") | {"seed": seed}
    document["evaluate"] |= {"tasks": list(tasks), "samples": SAMPLES}
    return check_params(document, "params.yaml")


def load(root: Path, *names: str, seed: int = 1) -> dict[str, Any]:
    return load_tasks(root, make_params(*names, seed=seed), SETTINGS)


def run(tasks: dict[str, Any], *texts: str) -> tuple[Any, TextsLM]:
    model = TextsLM(*texts)
    return evaluate(model, {"tasks": tasks, "groups": {}}, log_samples=True, bootstrap_iters=0), model


def test_each_of_k_answers_is_scored_by_itself_on_what_follows_its_thought(root: Path) -> None:
    tasks = load(root, "chains.yaml")
    output, model = run(tasks, RIGHT, WRONG, CUT, RIGHT, RIGHT, "answer 3 <eos>")
    assert model.asked == [("Q: 1 + 1", SETTINGS)] * SAMPLES + [("Q: 1 + 2", SETTINGS)] * SAMPLES
    seen = {(s["doc_id"], s["filter"]): s["filtered_resps"] for s in output["samples"]["chains"]}
    assert [seen[0, f"whole/{index}"] for index in range(3)] == [["answer 2"], ["answer 3"], [""]]
    assert seen[1, "number/2"] == ["3"]
    (records,) = checked_records(output, tasks, SAMPLES).values()
    assert [record["correct"] for record in records] == [True, False, False, False, False, True]
    assert [record["answer"] for record in records] == ["2", "3", "[invalid]", "2", "2", "3"]
    assert [record["finish_reason"] for record in records] == ["stop", "stop", "length", "stop", "stop", "stop"]
    assert [record["thinking"] for record in records] == [True] * 5 + [False]
    assert [record["num_tokens"] for record in records[:3]] == [len(text.split()) for text in (RIGHT, WRONG, CUT)]
    assert [(record["question_id"], record["sample_index"]) for record in records] == [
        (str(question), sample) for question in range(2) for sample in range(SAMPLES)
    ]


def test_the_metrics_are_means_over_the_answers(root: Path) -> None:
    tasks = load(root, "chains.yaml")
    output, _ = run(tasks, RIGHT, WRONG, CUT, RIGHT, RIGHT, "answer 3 <eos>")
    kept = portable_results(output, tasks, SAMPLES, root)
    metrics = {key: value for key, value in kept["results"]["chains"].items() if "," in key}
    assert metrics == {"exact_match,number": pytest.approx(1 / 3), "exact_match,whole": 0.0}
    scores = question_scores(output["samples"]["chains"])
    assert scores["exact_match,number"] == [pytest.approx(1 / 3)] * 2
    assert str(root) not in json.dumps(kept)


def test_a_cut_answer_is_wrong_whatever_the_scorer_says(root: Path) -> None:
    (root / "generous.py").write_text("def score(doc, results):\n    return {'exact_match': 1}\n")
    write_task(root, ("metric_list:", "process_results: !function generous.score\nmetric_list:"))
    tasks = load(root, "chains.yaml")
    output, _ = run(tasks, RIGHT, CUT, WRONG)
    (records,) = checked_records(output, tasks, SAMPLES).values()
    assert [record["correct"] for record in records] == [True, False, True] * 2


def test_a_score_between_0_and_1_has_no_place_in_the_question_table(root: Path) -> None:
    (root / "partly.py").write_text("def score(doc, results):\n    return {'exact_match': 0.5}\n")
    write_task(root, ("metric_list:", "process_results: !function partly.score\nmetric_list:"))
    tasks = load(root, "chains.yaml")
    output, _ = run(tasks, RIGHT)
    (records,) = checked_records(output, tasks, SAMPLES).values()
    assert question_scores(output["samples"]["chains"])["exact_match,whole"] == [0.5, 0.5]
    with pytest.raises(UserError, match=r"Task chains scores .* run it with `tldr run evaluate --task chains`"):
        check_verdicts("chains", records)


def test_a_task_without_filters_and_metrics_gets_those_of_lm_eval(root: Path) -> None:
    text = TASK[: TASK.index("metric_list")].replace("DATA", str(root / "questions.jsonl"))
    (root / "tasks" / "bare.yaml").write_text(text.replace("chains", "bare"))
    output, _ = run(load(root, "bare"), "</think> 2 <eos>")
    assert output["results"]["bare"]["exact_match,none/0"] == 0.5


def test_examples_in_the_prompt_are_keyed_by_the_seed(root: Path) -> None:
    write_questions(root, *((f"{n} + 0", str(n)) for n in range(20)))
    write_task(root, ("metric_list:", "num_fewshot: 2\nfewshot_split: test\nmetric_list:"))

    def prompts(seed: int) -> list[str]:
        return [arguments[0] for arguments in run(load(root, "chains.yaml", seed=seed), RIGHT)[1].asked]

    assert prompts(1) == prompts(1)
    assert prompts(1) != prompts(2)
    assert all(prompt.count("Q:") == 3 for prompt in prompts(1))


REFUSED = {
    "loglikelihood": (("type: generate_until", "type: multiple_choice"), "Task chains is of type multiple_choice: .*they gene"),
    "python": (("task: chains", "task: chains\nclass: x"), "Task chains is a Python class"),
    "code": (("metric_list:", "unsafe_code: true\nmetric_list:"), "Task chains runs generated code"),
    "image": (("metric_list:", "doc_to_image: [q]\nmetric_list:"), "Task chains asks about images"),
    "repeats": (("metric_list:", "repeats: 8\nmetric_list:"), "Task chains scores 8 answers to a question as one"),
    "package": (("{{q}}", "{{q}}\"\nprocess_docs: !function lacking.docs #"), "chains needs something .*nosuch"),
    "split": (("test_split: test", "test_split: exam"), r"Task chains cannot be loaded \(KeyError: 'exam'\)"),
    "data": (("questions.jsonl", "nosuch.jsonl"), "Task chains cannot be loaded .*nosuch.jsonl"),
    "yaml": (("task: chains", "task: [chains"), "The task file chains.yaml is no YAML of a task"),
    "name": (("task: chains", "other: chains"), "The task file chains.yaml names no task"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_answered_is_one_sentence(root: Path, change: tuple[str, str], message: str) -> None:
    (root / "lacking.py").write_text("import nosuch\n\ndef docs(data):\n    return data\n")
    write_task(root, change)
    with pytest.raises(UserError, match=message) as caught:
        load(root, "chains.yaml")
    assert "\n" not in str(caught.value)


def test_unknown_names_and_groups_are_one_sentence(root: Path) -> None:
    write_task(root, ("task: chains", "task: own"), name="tasks/own.yaml")
    with pytest.raises(
        UserError, match=r"There is no task \"gsm9k\" \(did you mean .*gsm8k.*takes a task of tasks/ \(own\)"
    ):
        load(root, "own", "gsm9k")
    with pytest.raises(UserError, match=r"minerva_math is a group of tasks, .*minerva_math_algebra.* and others"):
        load(root, "minerva_math")
    with pytest.raises(UserError, match="Task arc_easy is of type multiple_choice"):
        load(root, "arc_easy")
    with pytest.raises(UserError, match=r"The task file nosuch.yaml cannot be read"):
        load(root, "nosuch.yaml")
    with pytest.raises(UserError, match="names the task own twice"):
        load(root, "own", "tasks/own.yaml")


def test_our_own_tasks_may_be_given_by_path_too(root: Path) -> None:
    for name in ("_template.yaml", "scoring.py"):
        (root / "tasks" / name).write_text((ROOT / "tasks" / name).read_text())
    (root / "mine.jsonl").write_text('{"id": "x", "prompt": "p", "gold": "2"}\n')
    (root / "more").mkdir()
    own = "include: ../tasks/_template.yaml\ntask: mine\ndataset_kwargs: {path: mine.jsonl}\n"
    (root / "more" / "mine.yaml").write_text(own)
    output, _ = run(load(root, "more/mine.yaml"), RIGHT, WRONG, RIGHT)
    assert output["samples"]["mine"][0]["correct"] == [1, 0, 1]
