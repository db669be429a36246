"""From lm-eval's output to our records: one per answer, checked against lm-eval's aggregates, free of machine paths.

Takes what `lm_eval.evaluator.evaluate(..., log_samples=True)` returns (lm-eval 0.4.13), gives plain rows; writes them as
Parquet where it is told to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages._errors import StageFailed, UserError
from stages._io import whole_file
from stages.core.answers import is_cut
from stages.data.lm_eval_stock import filter_names, first_metric, merge_samples
from stages.data.lm_eval_tasks import ALL_SAMPLES, has_thought, is_own
from stages.evidence.questions import QuestionRow

Record = dict[str, Any]
# What is kept of lm-eval's output: no samples (they are the records), date, git hash, environment or speed.
KEPT = ("results", "n-samples", "versions", "n-shot", "higher_is_better", "configs")
OWN_FIELDS = {"id", "prompt", "gold"}  # of the questions in our problem files
TOLERANCE = 1e-9  # relative; only the order of summation differs
# Each aggregate of lm-eval, computed again from what the engine said of the answers rather than from the scores.
FROM_RECORDS: dict[str, Callable[[Record], float]] = {
    "correct": lambda record: record["correct"] and not is_cut(record["finish_reason"]),
    "num_tokens": lambda record: len(record["token_ids"]),
    "truncated": lambda record: is_cut(record["finish_reason"]),
    "no_think": lambda record: not record["thinking"],
    "verifier_error": lambda record: record["verifier_error"],
}


def document_id(doc: Mapping[str, Any], doc_id: int | None) -> str:
    """The own id of a question of our problem files; those of other tasks are numbered, an `id` there may occur twice."""
    return str(doc["id"] if doc.keys() >= OWN_FIELDS else doc_id)


def checked_records(output: Mapping[str, Any], tasks: Mapping[str, Any], num_samples: int) -> dict[str, list[Record]]:
    """The records of every task; StageFailed unless they are complete and agree with lm-eval."""
    records = {}
    for name, task in tasks.items():
        num_answers = len(task.task_docs) * num_samples
        if is_own(task):
            records[name] = task_records(name, output["samples"][name])
            check_records(name, records[name], output["results"][name], num_answers)
        else:
            records[name] = stock_records(name, task, output["samples"][name], num_samples)
            check_complete(name, records[name], num_answers)
    return records


def task_records(task: str, samples: Iterable[Mapping[str, Any]]) -> list[Record]:
    """One record per answer, in the order of the problem file and of the samples."""
    return [
        _record(task, sample, index, answer)
        | {
            "correct": bool(sample["correct"][index]),
            "answer": sample["answer"][index],
            "verifier_error": bool(sample["verifier_error"][index]),
        }
        for sample in samples
        for index, (answer, _) in enumerate(sample["filtered_resps"][0])
    ]


def stock_records(name: str, task: Any, samples: Iterable[Mapping[str, Any]], num_samples: int) -> list[Record]:
    """The same for one of lm-eval's own tasks: `correct` is its first metric after its first filter, None if that is
    neither 0 nor 1; a cut answer is wrong whatever the scorer says."""
    metric, first = first_metric(task), filter_names(task)[0]
    found = {(sample["doc_id"], sample["filter"]): sample for sample in samples}
    numbers = sorted({number for number, _ in found})
    records = []
    for number in numbers:
        for index in range(num_samples):
            sample = found[number, f"{first}/{index}"]
            answer, score = sample["resps"][0][index], sample.get(metric)
            verdict = {
                "correct": bool(score) and not is_cut(answer.finish_reason) if score in (0, 1) else None,
                "answer": _text(sample["filtered_resps"][0]),
                "verifier_error": False,
            }
            records.append(_record(name, sample, index, answer) | verdict)
    return records


def _record(task: str, sample: Mapping[str, Any], index: int, answer: Any) -> Record:
    return {
        "task": task,
        "question_id": document_id(sample["doc"], sample["doc_id"]),
        "group": sample["doc"].get("group", "") if sample["doc"].keys() >= OWN_FIELDS else "",
        "sample_index": index,
        "seed": answer.seed,
        "token_ids": list(answer.token_ids),
        "text": answer.text,
        "num_tokens": answer.num_tokens,
        "finish_reason": answer.finish_reason,
        "thinking": has_thought(answer.text, answer.finish_reason),
    }


def _text(filtered: Any) -> str:
    """What the filters left of an answer; some leave a list with it."""
    return str(filtered[0] if isinstance(filtered, (list, tuple)) and len(filtered) == 1 else filtered)


def check_complete(task: str, records: Sequence[Record], num_answers: int) -> None:
    """StageFailed unless there are as many answers as were asked for, those to a question with distinct seeds."""
    if len(records) != num_answers:
        raise StageFailed(f"Task {task} has {len(records)} answers instead of {num_answers}; report this as a bug.")
    if len({(record["question_id"], record["seed"]) for record in records}) != num_answers:
        raise StageFailed(f"Answers to one question of task {task} share a seed, so they are no independent samples.")


def check_records(task: str, records: Sequence[Record], aggregates: Mapping[str, Any], num_answers: int) -> None:
    """StageFailed unless the records of one of our tasks are complete and give lm-eval's own aggregates."""
    check_complete(task, records, num_answers)
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


def check_verdicts(task: str, records: Sequence[Record]) -> None:
    """UserError if the answers of a task are not right or wrong: such a task has no place in the question table."""
    if any(record["correct"] is None for record in records):
        raise UserError(
            f"Task {task} scores answers with more than 0 and 1, so it cannot be compared question by question; take it "
            f"out of evaluate.tasks and run it with `tldr run evaluate --task {task}`."
        )


def question_row(record: Record) -> QuestionRow:
    """A record without its text; an answer whose score is neither 0 nor 1 stands as wrong, see `check_verdicts`."""
    return QuestionRow(
        task=record["task"],
        group=record["group"],
        question_id=record["question_id"],
        sample_index=record["sample_index"],
        correct=bool(record["correct"]),
        num_tokens=record["num_tokens"],
        truncated=is_cut(record["finish_reason"]),
        no_think=not record["thinking"],
    )


def write_records(path: Path, records: Sequence[Record]) -> None:
    """One row per answer, as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    small, flag = pa.int32(), pa.bool_()
    kinds = {"sample_index": small, "num_tokens": small, "seed": pa.int64(), "token_ids": pa.list_(small)}
    kinds |= {"thinking": flag, "correct": flag, "verifier_error": flag}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in records[0]])
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(records), schema=schema), temporary)


def portable_results(
    output: Mapping[str, Any], tasks: Mapping[str, Any], num_samples: int, root: Path
) -> dict[str, Any]:
    """The part of lm-eval's output that is the same on every machine; paths become relative to `root` or to lm-eval."""
    results = {
        name: entry if is_own(tasks[name]) else merge_samples(entry, tasks[name], num_samples)
        for name, entry in output["results"].items()
    }
    kept = {name: output[name] for name in KEPT} | {"results": results}
    portable: dict[str, Any] = _plain(kept, f"{root}/")
    return portable


def _plain(value: Any, prefix: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, prefix) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, prefix) for item in value]
    if isinstance(value, str):
        _, inside, rest = value.partition("/lm_eval/tasks/")
        return f"lm_eval/tasks/{rest}" if inside and value.startswith("/") else value.removeprefix(prefix)
    if isinstance(value, partial):
        return {"function": _plain(value.func, prefix), **_plain(value.keywords, prefix)}
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value.item() if hasattr(value, "item") else value
