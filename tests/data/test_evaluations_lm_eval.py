"""What lm-eval logs as runs: a real run of its `dummy` model, which answers "lol" to everything, and faults in its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages._errors import UserError
from stages.data.evaluations import ReadSettings, Run, open_run
from stages.evidence.comparability import mismatches

SETTINGS = ReadSettings(verifier="exact", processes=1)
NUM_QUESTIONS = 6
DATE = "2026-01-31T12-00-00.123456"
GENERATE = """
output_type: generate_until
doc_to_target: '{{answer}}'
generation_kwargs: {until: ["\\n"], max_gen_toks: 32, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
TASKS = {
    "plain": GENERATE,
    "filtered": GENERATE
    + "filter_list: [{name: whole, filter: [{function: take_first}]}, "
    + "{name: strict, filter: [{function: regex, regex_pattern: '(no)'}, {function: take_first}]}]",
    "repeated": GENERATE + "repeats: 3",
    "choices": "output_type: multiple_choice\ndoc_to_choice: ['lol', 'no']\ndoc_to_target: 0\nmetric_list: [{metric: acc}]",
}


def opened(path: Path) -> Run:
    return open_run(str(path), root=None, settings=SETTINGS)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs lm-eval as its command line does and gives the output folder of a task."""
    import datasets
    import huggingface_hub.constants
    import lm_eval
    import lm_eval.models.dummy  # lm-eval does not look for its own models once another one is registered
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("lm-eval")
    rows = [{"question": f"{i}?", "answer": "lol" if i % 3 else "no", "empty": None} for i in range(NUM_QUESTIONS)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, body in TASKS.items():
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/test.jsonl}}}}\n"
            f"test_split: test\ndoc_to_text: '{{{{question}}}}'\nmetadata: {{version: 2.0}}\n{body}\n"
        )

    def run(output: str, *tasks: str, **settings: Any) -> Path:
        tracker = EvaluationTracker(output_path=str(folder / output))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
            patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # else it waits for the network
            manager = TaskManager(include_path=str(folder), include_defaults=False)
            results = lm_eval.simple_evaluate(
                model="dummy",
                model_args="pretrained=toy/dummy",
                tasks=list(tasks),
                task_manager=manager,
                **{"evaluation_tracker": tracker, "log_samples": True, "bootstrap_iters": 0, **settings},
            )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, mine in samples.items():
            tracker.save_results_samples(task_name=task, samples=mine)
        return folder / output

    return run


def test_a_real_run_is_read_with_its_verdicts_lengths_and_conditions(logged: Callable[..., Path]) -> None:
    run = opened(logged("real", "plain", "filtered"))
    assert set(run.tables) == {"plain", "filtered"}
    for table in run.tables.values():
        assert table.question_ids == tuple(map(str, range(NUM_QUESTIONS)))
        assert table.correct[:, 0].tolist() == [i % 3 > 0 for i in range(NUM_QUESTIONS)]
        assert (table.tokens == 1).all()
        assert not table.truncated.any()
    found = run.conditions
    assert (found.length_unit, found.model) == ("words", "toy/dummy")
    assert found.versions == {"plain": "2.0, 0-shot", "filtered": "2.0, 0-shot"}
    assert found.decode_of("plain") == {
        "max_tokens": 32,
        "temperature": 0.0,
        "until": ["\n"],
        "system_instruction": None,
    }
    assert found.task_verifier == {"plain": "exact_match, filter none", "filtered": "exact_match, filter whole"}
    assert [note for note in run.notes if note.endswith("verdicts are those of the first filter, whole (not strict).")]
    trace = run.texts([("filtered", "1", 0)])["filtered", "1", 0]
    assert (trace.problem, trace.gold, trace.text, trace.answer) == ("1?", "lol", "lol", "lol")


def test_two_real_runs_differ_in_what_was_set_differently(logged: Callable[..., Path]) -> None:
    one = opened(logged("one", "plain")).conditions
    assert mismatches(one, opened(logged("same", "plain")).conditions, ["plain"]) == []
    changed = opened(logged("changed", "plain", gen_kwargs="max_gen_toks=64", limit=4)).conditions
    assert [each.field for each in mismatches(one, changed, ["plain"])] == ["prompts", "decode.max_tokens"]


def test_a_single_file_is_read_like_its_folder(logged: Callable[..., Path]) -> None:
    folder = logged("single", "plain")
    (file,) = folder.rglob("samples_*.jsonl")
    assert opened(file).conditions == opened(folder).conditions == opened(file.parent).conditions
    renamed = file.rename(file.with_name("mine.jsonl"))
    run = opened(renamed)
    assert (list(run.tables), run.conditions.versions) == (["mine"], {})
    assert run.conditions.decode_of("mine")["max_tokens"] == 32


def test_two_results_of_one_task_are_not_guessed_between(tmp_path: Path) -> None:
    for task, date in (("a_1", DATE), ("b", DATE.replace("31T", "30T"))):
        write(tmp_path / f"samples_{task}_{date}.jsonl", record(0))
    assert set(opened(tmp_path).tables) == {"a_1", "b"}
    later = write(tmp_path / f"samples_b_{DATE}.jsonl", record(0))
    with pytest.raises(UserError, match=rf"holds task b twice, in samples_b_\S+jsonl and {later.name}; name the file"):
        opened(tmp_path)


def test_likelihoods_and_answers_that_are_scored_as_one_are_refused(logged: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"line 1, field resps: no list of generated answers; a task that compares"):
        opened(logged("likelihoods", "choices"))
    with pytest.raises(UserError, match=r"line 1, field exact_match: 1 score for 3 answers, which are judged as one"):
        opened(logged("repeats", "repeated"))


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc": {"question": f"{number}?", "cell": float("nan")},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"{number}?", "arg_1": {"temperature": 0.6, "top_p": 0.9}}},
        "resps": [["so </think> 4"]],
        "filtered_resps": ["4"],
        "filter": "none",
        "metrics": ["acc", "other"],
        "doc_hash": f"hash-{number}",
        "acc": 1.0,
        "other": 0.5,
        **changes,
    }


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def test_one_score_per_answer_gives_samples(tmp_path: Path) -> None:
    answers = [["a b c", "</think> d", ""]]
    path = tmp_path / f"samples_my_task_{DATE}.jsonl"
    write(path, *(record(number, resps=answers, acc=[1, 0, True]) for number in range(2)))
    run = opened(tmp_path)
    table = run.tables["my_task"]
    assert table.correct.tolist() == [[True, False, True]] * 2
    assert table.tokens.tolist() == [[3, 2, 0]] * 2
    assert run.conditions.decode_of("my_task") == {"temperature": 0.6, "top_p": 0.9}
    assert run.conditions.task_verifier == {"my_task": "acc, filter none"}


def test_questions_of_our_problem_files_keep_their_ids(tmp_path: Path) -> None:
    doc = {"id": "q7", "prompt": "2 + 2 ?", "gold": "4", "group": ""}
    run = opened(write(tmp_path / f"samples_tiny_{DATE}.jsonl", record(0, doc=doc)))
    assert run.tables["tiny"].question_ids == ("q7",)
    assert run.texts([("tiny", "q7", 0)])["tiny", "q7", 0].problem == "2 + 2 ?"
    plain = {"id": "q7", "problem": "2 + 2 ?", "gold": "4", "responses": ["4"], "correct": [True], "task": "tiny"}
    assert opened(write(tmp_path / "plain.jsonl", plain)).conditions.prompts == run.conditions.prompts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_id": 0}, "line 2, field doc_id: question 0 is already on line 1"),
        ({"doc_id": "1"}, "line 2, field doc_id: a string"),
        ({"doc": None}, "line 2, field doc: a null"),
        ({"resps": []}, "line 2, field resps: no list of generated answers"),
        ({"resps": [[]]}, "line 2, field resps: no answer"),
        ({"resps": [["a", "b"]]}, "line 2, field acc: 1 score for 2 answers"),
        ({"acc": 0.5}, r"line 2, field acc: 0\.5 is neither 0 nor 1"),
        ({"acc": float("nan")}, "line 2, field acc: NaN is neither"),
        ({"acc": "1"}, 'line 2, field acc: "1" is neither'),
        ({"acc": [1, 1]}, "line 2, field acc: 2 score"),
        ({"acc": []}, r"line 2, field acc: \[\] is neither"),
        ({"filter": 3}, "line 2, field filter: a number"),
        ({"metrics": "acc"}, "line 2, field metrics: a string"),
    ],
)
def test_a_malformed_line_names_file_line_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / f"samples_t_{DATE}.jsonl", record(0), record(1, **changes))
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_damaged_results_beside_samples_are_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / f"samples_t_{DATE}.jsonl", record(0))
    for content in ("{", "[]", '{"versions": 3}'):
        (tmp_path / f"results_{DATE}.json").write_text(content)
        with pytest.raises(UserError, match=r"results_\S+\.json is no file of results of lm-eval"):
            opened(path)
    results = {"versions": {"t": 1}, "n-shot": {"t": 5}, "model_name": "m"}
    (tmp_path / f"results_{DATE}.json").unlink()
    (tmp_path / f"named_{DATE}.json").write_text(json.dumps(results))
    found = opened(path).conditions
    assert (found.versions, found.model) == ({"t": "1, 5-shot"}, "m")
