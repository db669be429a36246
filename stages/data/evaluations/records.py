"""Our response records: responses.parquet of the pipeline, records.parquet of `tldr run evaluate --task`.

Reads those files, conditions.json or else lm_eval.json beside them, and for full texts the problem files that lm_eval.json
names; writes nothing. The columns are those of `stages.data.lm_eval_output.write_records`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages.core.answers import is_cut
from stages.data.conditions import version
from stages.data.evaluations.lm_eval_results import questions_of, read_results
from stages.data.evaluations.plain import FINISH_REASONS, MAX_TOKENS
from stages.data.evaluations.run import Key, Shape, Trace
from stages.data.evaluations.sidecar import conditions_beside, merged
from stages.data.evaluations.source import Source
from stages.evidence.comparability import Conditions
from stages.evidence.questions import QuestionRow

COLUMNS = ("task", "group", "question_id", "sample_index", "correct", "num_tokens", "finish_reason", "thinking")
KINDS = {
    "sample_index": "integer",
    "num_tokens": "integer",
    "correct": "boolean",
    "thinking": "boolean",
}  # others: string
TEXTS = ("task", "question_id", "sample_index", "text", "answer")
BATCH = 8192  # rows
AGAIN = "take the file from the run anew"


class RecordReader:
    """A `Reader` of one or several files of records, with different tasks in each; `root` is the checkout."""

    def __init__(self, sources: Sequence[Source], root: Path | None) -> None:
        self._sources, self._root = sources, root
        self._places: dict[str, Source] = {}  # file of each task

    def rows(self) -> Iterator[QuestionRow]:
        for source in self._sources:
            number = 0
            for number, values in _records(source, COLUMNS):
                row = _question_row(f"{source.name}, row {number}", dict(zip(COLUMNS, values, strict=True)))
                first = self._places.setdefault(row.task, source)
                if first != source:
                    raise UserError(
                        f"Task {row.task} is in {first.name} and in {source.name}; name the one of them that is meant."
                    )
                yield row
            if not number:
                raise UserError(f"{source.name} has no rows; {AGAIN}.")

    def conditions(self, shapes: Mapping[str, Shape]) -> Conditions:
        tasks = [[task for task in shapes if self._places[task] == source] for source in self._sources]
        parts = [
            _conditions(source, {task: shapes[task] for task in mine})
            for source, mine in zip(self._sources, tasks, strict=True)
        ]
        return merged(parts, tasks)

    def notes(self) -> list[str]:
        return []

    def refusal(self, error: ValueError) -> str:
        names = " and ".join(source.name for source in self._sources)
        return f"{names}: {error}; {AGAIN}."

    def texts(self, keys: Collection[Key]) -> dict[Key, Trace]:
        found = {}
        for source in self._sources:
            results = read_results(source.beside("lm_eval.json"))
            tasks = {task for task, _, _ in keys}
            questions = {task: questions_of(results, task, self._root) for task in tasks}
            for _, (task, question_id, index, text, answer) in _records(source, TEXTS):
                if (task, question_id, index) in keys:
                    problem = questions[task].get(question_id)
                    asked = ("", "") if problem is None else (problem.prompt, problem.gold)
                    found[task, question_id, index] = Trace(*asked, text or "", answer)
        return found


def _conditions(source: Source, shapes: Mapping[str, Shape]) -> Conditions:
    stated = conditions_beside(source, "conditions.json", shapes, table=False)
    if stated is not None:
        return stated
    results = read_results(source.beside("lm_eval.json"))
    versions = {task: found for task in shapes if (found := version(results, task)) is not None}
    return Conditions(length_unit="tokens", versions=versions)


def _question_row(place: str, record: dict[str, Any]) -> QuestionRow:
    for column in ("sample_index", "num_tokens"):
        if not 0 <= record[column] < MAX_TOKENS:
            raise UserError(f"{place}, column {column}: {record[column]} is no count; {AGAIN}.")
    for column in ("task", "question_id"):
        if not record[column]:
            raise UserError(f"{place}, column {column}: empty; {AGAIN}.")
    if record["finish_reason"] not in FINISH_REASONS:
        raise UserError(f"{place}, column finish_reason: {record['finish_reason'][:40]!r} is unknown; {AGAIN}.")
    cut = is_cut(record["finish_reason"])
    return QuestionRow(
        task=record["task"],
        group=record["group"],
        question_id=record["question_id"],
        sample_index=record["sample_index"],
        correct=record["correct"] and not cut,
        num_tokens=record["num_tokens"],
        truncated=cut,
        no_think=not record["thinking"],
    )


def _records(source: Source, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(row number from 1, values of `columns`) of a Parquet file, batch by batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with source.open() as stream, contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(stream))
            _check_columns(source.name, file.schema_arrow, columns)
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                values = [batch.column(name) for name in columns]
                _check_nulls(source.name, number, dict(zip(columns, values, strict=True)))
                for row in zip(*(column.to_pylist() for column in values), strict=True):
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"{source.name} is no readable Parquet file ({reason}); {AGAIN}.") from None


def _check_columns(name: str, schema: Any, columns: Sequence[str]) -> None:
    import pyarrow as pa

    is_kind = {"string": pa.types.is_string, "integer": pa.types.is_integer, "boolean": pa.types.is_boolean}
    for column in columns:
        kind = KINDS.get(column, "string")
        if column not in schema.names:
            raise UserError(f"{name} has no column {column}, so it holds no response records; name another file.")
        if not is_kind[kind](schema.field(column).type):
            raise UserError(f"{name}, column {column}: {schema.field(column).type} instead of {kind}; {AGAIN}.")


def _check_nulls(name: str, start: int, columns: dict[str, Any]) -> None:
    for column, values in columns.items():
        if not values.null_count or column in ("text", "answer"):
            continue
        row = start + 1 + values.is_null().index(True).as_py()
        why = "the task does not score with 0 and 1" if column == "correct" else "empty"
        raise UserError(f"{name}, row {row}, column {column}: {why}; compare other results.")
