"""lm-eval's own tasks, answered k times per question: which of them can run, and how one answer at a time is scored.

Their filters and `process_results` expect one answer. So each filter of a task is set up k times, once per repeat, with a
first step that picks that repeat's answer: lm-eval draws all k answers at once, scores each of them by itself, and reports
k values for every metric, of which the mean is ours. What a task's scorer sees of an answer is the text after the closed
thought, nothing if the answer was cut. A task's generation_kwargs (stop strings, token limit, temperature) do not count:
answers are drawn as the `decode` block of params.yaml says, with the prompt as one user turn of the chat template. Reads
and writes no files. Written against lm-eval 0.4.13.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from stages._errors import UserError

NO_FILTER = [{"name": "none", "filter": [{"function": "take_first"}]}]  # what lm-eval does where a task has none


def check_stock(name: str, config: Mapping[str, Any]) -> None:
    """UserError with the reason if the task cannot be answered here; `config` is its YAML, includes resolved."""
    kind = config.get("output_type", "generate_until")
    if "class" in config:
        raise UserError(f"Task {name} is a Python class, not a YAML file, so it cannot be set up here; choose another.")
    if kind != "generate_until":
        raise UserError(
            f"Task {name} is of type {kind}: it compares the likelihood of given answers, but reasoning models are "
            "evaluated by what they generate; choose a task of type generate_until."
        )
    if config.get("unsafe_code"):
        raise UserError(f"Task {name} runs generated code on this machine, which is not done here; choose another.")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise UserError(f"Task {name} asks about images or sounds, but models here read text; choose another.")
    if config.get("repeats", 1) != 1:
        raise UserError(
            f"Task {name} scores {config['repeats']} answers to a question as one; choose its variant without repeats: "
            "evaluate.samples says how many answers are drawn."
        )


def stock_settings(config: Mapping[str, Any], num_samples: int) -> dict[str, Any]:
    """Overrides of a task's YAML: `num_samples` answers, each through each of the task's filters by itself."""
    filters = config.get("filter_list") or NO_FILTER
    return {
        "repeats": num_samples,
        "filter_list": [
            {"name": f"{entry['name']}/{index}", "filter": [_picking(index), *entry["filter"]]}
            for entry in filters
            for index in range(num_samples)
        ],
    }


def _picking(index: int) -> dict[str, Any]:
    return {"function": "custom", "filter_fn": partial(pick, index=index)}


def pick(answers: Iterable[Sequence[str]], docs: Sequence[Any], *, index: int) -> list[list[str]]:
    """lm-eval filter: of every question the answer number `index`, as a plain string."""
    return [[str(group[index])] for group in answers]


def filter_names(task: Any) -> list[str]:
    """Names of the filters that the task itself defines, in their order."""
    return list(dict.fromkeys(entry["name"].rpartition("/")[0] for entry in task.config.filter_list))


def first_metric(task: Any) -> str:
    """The metric whose value says whether an answer is correct: the first that the task lists."""
    return str(next(iter(task.aggregation())))


def merge_samples(results: Mapping[str, Any], task: Any, num_samples: int) -> dict[str, Any]:
    """lm-eval's aggregates of one task with the `num_samples` values of each metric replaced by their mean."""
    merged: dict[str, Any] = {}
    parts: dict[str, list[Any]] = {}
    for key, value in results.items():
        metric, comma, name = key.partition(",")
        if not comma:
            merged[key] = value
        elif not metric.endswith("_stderr"):
            parts.setdefault(f"{metric},{name.rpartition('/')[0]}", []).append(value)
    assert all(len(values) == num_samples for values in parts.values()), parts
    return merged | {key: _mean(values) for key, values in parts.items()}


def question_scores(samples: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By "metric,filter" the mean over each question's answers; left out are metrics whose values are no numbers."""
    values: dict[str, dict[int, list[Any]]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            key = f"{metric},{sample['filter'].rpartition('/')[0]}"
            values.setdefault(key, {}).setdefault(sample["doc_id"], []).append(sample[metric])
    return {
        key: [_mean(answers) for answers in questions.values()]
        for key, questions in values.items()
        if all(is_number(value) for answers in questions.values() for value in answers)
    }


def _mean(values: list[Any]) -> Any:
    """Values that are no numbers (a few tasks report lists) are left as they are."""
    return sum(values) / len(values) if all(is_number(value) for value in values) else values


def is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real)
