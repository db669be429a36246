"""Our lm-eval tasks over local problem files: feed their questions, grade and score the answers.

Reads the problem files; writes nothing. The functions that the YAML files name (through tasks/scoring.py) are
`documents`, `score`, `question_mean` and `given_share`. Questions come from `read_problems`, not from the `json` builder
of `datasets`: that one keeps a cache between runs and turns strings that look like dates into time stamps. Written
against lm-eval 0.4.13; answers arrive as `stages.engines.lm_eval_model.GeneratedText`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages._params import Params
from stages.core.answers import is_cut, split_thought
from stages.data.problems import read_problems
from stages.verifier.grade import Grade, grade_all

ALL_SAMPLES = "all_samples"  # name of the filter, hence the suffix of lm-eval's metric names


def is_own(task: Any) -> bool:
    """Whether a loaded lm-eval task is one of ours, which is scored on all answers to a question at once."""
    return bool(task.config.filter_list[0]["name"] == ALL_SAMPLES)


def own_settings(root: Path, params: Params, config: dict[str, Any]) -> dict[str, Any]:
    """What params.yaml says of a task; its YAML may name a problem file (relative to the root), a verifier and more."""
    own = config.get("dataset_kwargs") or {}
    verifier = own.get("verifier", params.data.verifier)
    grading = partial(grade, verifier=verifier, processes=params.engine.processes)
    path = str(root / own.get("path", params.data.test.path))
    return {
        "repeats": params.evaluate.samples,
        "dataset_kwargs": {**own, "path": path, "verifier": verifier},
        "filter_list": [
            {
                "name": ALL_SAMPLES,
                "filter": [
                    {"function": "take_first_k", "k": params.evaluate.samples},
                    {"function": "custom", "filter_fn": grading},
                ],
            }
        ],
    }


def documents(path: str, **_: Any) -> dict[str, Any]:
    """The questions of the problem file `path` as the split `test`; lm-eval also passes the task's metadata."""
    from datasets import Dataset

    problems = read_problems(Path(path))
    rows = [{"id": p.id, "prompt": p.prompt, "gold": p.gold, "group": p.group or ""} for p in problems]
    return {"test": Dataset.from_list(rows)}


def grade(
    answers: Iterable[Sequence[Any]], docs: Sequence[dict[str, Any]], *, verifier: str, processes: int
) -> list[list[tuple[Any, Grade]]]:
    """lm-eval filter over all questions at once (workers start once): each answer with its grade."""
    by_question = [list(group) for group in answers]
    items = [
        (answer.text, answer.finish_reason, doc["gold"])
        for group, doc in zip(by_question, docs, strict=True)
        for answer in group
    ]
    grades = iter(grade_all(items, verifier, processes))
    return [[(answer, next(grades)) for answer in group] for group in by_question]


def score(doc: dict[str, Any], results: list[list[tuple[Any, Grade]]]) -> dict[str, list[Any]]:
    """Per-answer values of one question, each a list over its answers; every key lands in lm-eval's sample record."""
    graded = results[0]
    return {
        "correct": [int(grade.correct and not is_cut(answer.finish_reason)) for answer, grade in graded],
        "num_tokens": [answer.num_tokens for answer, _ in graded],
        "truncated": [int(is_cut(answer.finish_reason)) for answer, _ in graded],
        "no_think": [int(not has_thought(answer.text, answer.finish_reason)) for answer, _ in graded],
        "verifier_error": [int(grade.error) for _, grade in graded],
        "answer": [grade.answer for _, grade in graded],
    }


def has_thought(text: str, finish_reason: str) -> bool:
    """Whether an answer reasons: a closed thought with words in it, or one that was still going on when it was cut."""
    thought = split_thought(text)
    return bool(thought.thought) if thought.closed else is_cut(finish_reason)


def question_mean(values: Sequence[Sequence[float]]) -> float:
    """Mean over questions of the mean over each question's answers."""
    return sum(sum(answers) / len(answers) for answers in values) / len(values)


def given_share(values: Sequence[Sequence[str | None]]) -> float:
    """Share of answers in which an answer was found at all."""
    return question_mean([[float(answer is not None) for answer in answers] for answers in values])
