"""Graded samples: verdict and length of the thought, written to artifacts/labels/grades.parquet."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._errors import UserError
from stages.core.answers import CLOSE
from stages.core.labels import GradedResponse, pass_rate
from stages.data.problems import Problem
from stages.data.prompts import load_tokenizer
from stages.data.samples import Sample, last_positions, samples_of
from stages.verifier.grade import Grade, Item, grade_each

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 65_536  # rows of grades.parquet that are in memory at once


@dataclass(frozen=True, slots=True)
class Graded:
    """A sample with its verdict; `response` is what core.labels chooses from."""

    sample: Sample
    grade: Grade
    response: GradedResponse


def close_id(model_path: Path) -> int:
    """Id of the token that closes a thought; UserError if the tokenizer has no such single token."""
    vocabulary: dict[str, int] = load_tokenizer(model_path).get_vocab()
    if CLOSE not in vocabulary:
        raise UserError(
            f"The tokenizer in {model_path} has no single token {CLOSE}, so thoughts cannot be measured; "
            "set model.path to a reasoning model whose tokenizer has it."
        )
    return vocabulary[CLOSE]


def graded_problems(
    batches: Iterable[pa.RecordBatch],
    problems: Mapping[str, Sequence[Problem]],
    verifier: str,
    processes: int,
    closing_id: int,
) -> Generator[list[Graded]]:
    """The answers to one problem after the other, as they stand in `batches` (of data.samples, problem after problem).

    Holds the batches that the verifier is at work on, not those before or after. Close it if not all are taken.
    """
    golds = {(source, problem.id): problem.gold for source, rows in problems.items() for problem in rows}
    waiting: deque[tuple[Sample, int]] = deque()

    def items() -> Iterator[Item]:
        for batch in batches:
            for pair in zip(samples_of(batch), last_positions(batch, closing_id), strict=True):
                waiting.append(pair)
                sample = pair[0]
                yield sample.text, sample.finish_reason, golds[sample.source, sample.problem_id]

    with closing(grade_each(items(), verifier, processes)) as grades:
        graded = (_graded(*waiting.popleft(), grade) for grade in grades)
        for _, answers in groupby(graded, key=lambda one: (one.sample.source, one.sample.problem_id)):
            yield list(answers)


def _graded(sample: Sample, num_thought_tokens: int, grade: Grade) -> Graded:
    """The thought ends at the last closing token, as in core.answers; an unclosed thought is no reasoning."""
    response = GradedResponse(
        problem_id=sample.problem_id,
        sample_index=sample.sample_index,
        num_tokens=sample.num_tokens,
        num_thought_tokens=num_thought_tokens,
        correct=grade.correct,
        has_reasoning=num_thought_tokens > 0,
        finish_reason=sample.finish_reason,
    )
    return Graded(sample, grade, response)


class GradesFile:
    """Writes grades.parquet: one row per response, in the order in which they are added; a row group is in memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text, count, flag = pa.string(), pa.int32(), pa.bool_()
        self._schema = pa.schema(
            [
                *(("source", text), ("problem_id", text), ("sample_index", count), ("num_tokens", count)),
                *(("num_thought_tokens", count), ("finish_reason", text), ("correct", flag), ("verifier_error", flag)),
                *(("answer", text), ("pass_rate", pa.float64())),
            ]
        )
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[tuple[Any, ...]] = []

    def add(self, answers: Sequence[Graded]) -> None:
        """All answers to one problem."""
        rate = pass_rate([graded.response for graded in answers])
        self._rows += [(*_grade_row(graded), rate) for graded in answers]
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = zip(self._schema, zip(*self._rows, strict=True), strict=True)
            arrays = [pa.array(values, field.type) for field, values in columns]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _grade_row(graded: Graded) -> tuple[Any, ...]:
    """Values of the columns but the last."""
    sample, grade = graded.sample, graded.grade
    return (
        *(sample.source, sample.problem_id, sample.sample_index, sample.num_tokens),
        *(graded.response.num_thought_tokens, sample.finish_reason, grade.correct, grade.error),
        grade.answer,
    )
