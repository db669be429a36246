"""From lm-eval's output to our records: one per answer, checked against lm-eval's aggregates, free of machine paths.

Takes what `lm_eval.evaluator.evaluate(..., log_samples=True)` returns (lm-eval 0.4.13), gives plain rows; no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages.data.lm_eval_tasks import ALL_SAMPLES

Record = dict[str, Any]
# What is kept of lm-eval's output: no samples (they are the records), date, git hash, environment or speed.
KEPT = ("results", "n-samples", "versions", "n-shot", "higher_is_better", "configs")
TOLERANCE = 1e-9  # relative; only the order of summation differs
# Each aggregate of lm-eval, computed again from what the engine said of the answers rather than from the scores.
FROM_RECORDS: dict[str, Callable[[Record], float]] = {
    "correct": lambda record: record["correct"] and record["finish_reason"] == "stop",
    "num_tokens": lambda record: len(record["token_ids"]),
    "truncated": lambda record: record["finish_reason"] == "length",
    "no_think": lambda record: not record["thinking"],
    "verifier_error": lambda record: record["verifier_error"],
}


def document_id(doc: Mapping[str, Any], doc_id: int | None) -> str:
    """A question's own id; tasks whose documents have none are numbered."""
    return str(doc.get("id", doc_id))


def task_records(task: str, samples: Iterable[Mapping[str, Any]]) -> list[Record]:
    """One record per answer, in the order of the problem file and of the samples."""
    return [
        {
            "task": task,
            "question_id": document_id(sample["doc"], sample["doc_id"]),
            "group": sample["doc"].get("group", ""),
            "sample_index": index,
            "seed": answer.seed,
            "token_ids": list(answer.token_ids),
            "text": str(answer),
            "num_tokens": sample["num_tokens"][index],
            "finish_reason": answer.finish_reason,
            "thinking": not sample["no_think"][index],
            "correct": bool(sample["correct"][index]),
            "answer": sample["answer"][index],
            "verifier_error": bool(sample["verifier_error"][index]),
        }
        for sample in samples
        for index, (answer, _) in enumerate(sample["filtered_resps"][0])
    ]


def check_records(task: str, records: Sequence[Record], aggregates: Mapping[str, Any], num_answers: int) -> None:
    """StageFailed unless the records of a task are complete, have distinct seeds, and give lm-eval's own aggregates."""
    if len(records) != num_answers:
        raise StageFailed(f"Task {task} has {len(records)} answers instead of {num_answers}; report this as a bug.")
    if len({(record["question_id"], record["seed"]) for record in records}) != num_answers:
        raise StageFailed(f"Answers to one question of task {task} share a seed, so they are no independent samples.")
    for metric, value in FROM_RECORDS.items():
        ours = math.fsum(value(record) for record in records) / num_answers
        reported = aggregates[f"{metric},{ALL_SAMPLES}"]
        if not math.isclose(ours, reported, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise StageFailed(
                f"lm-eval reports {metric} = {reported} for task {task}, but its answers give {ours}; "
                "check process_results and metric_list of the task."
            )


def check_verifier(task: str, records: Sequence[Record], max_error_rate: float) -> None:
    """StageFailed if the verifier gave no verdict too often: such answers count as wrong, and long ones most of all."""
    rate = sum(record["verifier_error"] for record in records) / len(records)
    if rate > max_error_rate:
        raise StageFailed(
            f"The verifier gave no verdict on {rate:.1%} of the answers of task {task}, more than "
            f"label.max_verifier_error_rate = {max_error_rate:.1%}; check the gold answers of its problem file."
        )


def portable_results(output: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The part of lm-eval's output that is the same on every machine; paths become relative to `root`."""
    result: dict[str, Any] = _plain({name: output[name] for name in KEPT}, f"{root}/")
    return result


def _plain(value: Any, prefix: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, prefix) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, prefix) for item in value]
    if isinstance(value, str):
        return value.removeprefix(prefix)
    if isinstance(value, partial):
        return {"function": _plain(value.func, prefix), **_plain(value.keywords, prefix)}
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value
