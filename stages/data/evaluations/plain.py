"""Plain JSON Lines of answers, one question per line: .jsonl or .jsonl.gz. Reads them as a stream; writes nothing.

    id, problem, gold    texts (id and gold may be numbers); (task, id) is unique
    responses            list of texts, the answers; as many in every row of a task
    correct              optional list of booleans (or 0, 1), one per answer
    num_tokens           optional list of whole numbers, the tokens of each answer
    finish_reasons       optional list of `stop`, `length` or `repetition`; unknown endings count as not cut off
    prompt, task         optional texts: the prompt as the model saw it; the benchmark, where a file holds several

An optional list is in every row or in none. Other fields are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages.data.evaluations.lines import Row, json_rows, kind, shown
from stages.data.evaluations.source import Source

FINISH_REASONS = ("stop", "length", "repetition")
OPTIONAL = ("task", "correct", "num_tokens", "finish_reasons")
MAX_TOKENS = 10**12  # as in the question table: below it, no sum of token counts overflows


@dataclass(frozen=True, slots=True)
class PlainRow:
    """One question with its answers; `correct`, `num_tokens`, `finish_reasons` are as long as `responses`, or None."""

    line: int
    id: str
    problem: str
    gold: str
    prompt: str | None
    responses: tuple[str, ...]
    correct: tuple[bool, ...] | None
    num_tokens: tuple[int, ...] | None
    finish_reasons: tuple[str, ...] | None
    task: str | None


def read_plain(path: Path) -> Iterator[PlainRow]:
    """Rows in file order, checked one by one and against each other; UserError names file, line and field."""
    return plain_rows(Source(str(path), path))


def plain_rows(source: Source) -> Iterator[PlainRow]:
    """`read_plain` of any source."""
    lines: dict[tuple[str | None, str], int] = {}
    first = _FirstRows(source.name)
    for line, fields in json_rows(source):
        row = _plain_row(f"{source.name}, line {line}", line, fields)
        earlier = lines.setdefault((row.task, row.id), line)
        if earlier != line:
            where = "" if row.task is None else f" of task {shown(row.task)}"
            raise UserError(
                f"{source.name}, line {line}, field id: {shown(row.id)}{where} is already on line {earlier}; "
                "put all answers to a question into one row."
            )
        first.check(row)
        yield row


class _FirstRows:
    """What the rows of a file must share: which optional fields they have, and per task the number of answers."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fields: tuple[int, dict[str, bool]] | None = None  # line, whether it has each of OPTIONAL
        self._samples: dict[str | None, tuple[int, int]] = {}  # by task: line, number of answers

    def check(self, row: PlainRow) -> None:
        place = f"{self._name}, line {row.line}"
        has = {field: getattr(row, field) is not None for field in OPTIONAL}
        self._fields = self._fields or (row.line, has)
        line, expected = self._fields
        for field in OPTIONAL:
            if has[field] != expected[field]:
                state = "missing, but given" if expected[field] else "given, but not"
                raise UserError(f"{place}, field {field}: {state} on line {line}; write it in every row or in none.")
        line, number = self._samples.setdefault(row.task, (row.line, len(row.responses)))
        if len(row.responses) != number:
            raise UserError(
                f"{place}, field responses: {len(row.responses)} answers, but line {line} has {number}; every question of a "
                "task needs the same number."
            )


def _plain_row(place: str, line: int, fields: Row) -> PlainRow:
    responses = _list(place, fields, "responses", None)
    if not responses:
        raise UserError(f"{place}, field responses: empty; write one text per answer.")
    if not all(type(text) is str for text in responses):
        wrong = next(text for text in responses if type(text) is not str)
        raise UserError(f"{place}, field responses: a {kind(wrong)} among the answers; write one text per answer.")
    return PlainRow(
        line=line,
        id=_text(place, fields, "id", numbers=(int,)),
        problem=_text(place, fields, "problem"),
        gold=_text(place, fields, "gold", numbers=(int, float)),
        prompt=_text(place, fields, "prompt") if fields.get("prompt") is not None else None,
        responses=tuple(responses),
        correct=_verdicts(place, fields, len(responses)),
        num_tokens=_counts(place, fields, len(responses)),
        finish_reasons=_reasons(place, fields, len(responses)),
        task=_text(place, fields, "task") if fields.get("task") is not None else None,
    )


def _text(place: str, fields: Row, name: str, numbers: tuple[type, ...] = ()) -> str:
    if name not in fields:
        raise UserError(f"{place}, field {name}: missing; every row needs id, problem, gold and responses.")
    value = fields[name]
    if type(value) in numbers:
        return str(value)
    if type(value) is not str or not value.strip():
        found = "empty" if type(value) is str else f"a {kind(value)}"
        raise UserError(f"{place}, field {name}: {found}; write a text.")
    return value


def _list(place: str, fields: Row, name: str, length: int | None) -> list[Any]:
    if name not in fields:
        raise UserError(f"{place}, field {name}: missing; every row needs id, problem, gold and responses.")
    value = fields[name]
    if type(value) is not list:
        raise UserError(f"{place}, field {name}: a {kind(value)}; write a list with one entry per answer.")
    if length is not None and len(value) != length:
        raise UserError(
            f"{place}, field {name}: {len(value)} entries for {length} responses; write one entry per answer."
        )
    return value


def _verdicts(place: str, fields: Row, length: int) -> tuple[bool, ...] | None:
    if fields.get("correct") is None:
        return None
    values = _list(place, fields, "correct", length)
    for value in values:
        if type(value) is not bool and not (type(value) is int and value in (0, 1)):
            raise UserError(f"{place}, field correct: {shown(value)} is neither true nor false; write JSON booleans.")
    return tuple(map(bool, values))


def _counts(place: str, fields: Row, length: int) -> tuple[int, ...] | None:
    if fields.get("num_tokens") is None:
        return None
    values = _list(place, fields, "num_tokens", length)
    for value in values:
        if type(value) is not int or not 0 <= value < MAX_TOKENS:
            raise UserError(
                f"{place}, field num_tokens: {shown(value)} is not a whole number from 0 and of at most 12 digits; "
                "write the tokens of each answer."
            )
    return tuple(values)


def _reasons(place: str, fields: Row, length: int) -> tuple[str, ...] | None:
    if fields.get("finish_reasons") is None:
        return None
    values = _list(place, fields, "finish_reasons", length)
    for value in values:
        if value not in FINISH_REASONS:
            raise UserError(
                f"{place}, field finish_reasons: {shown(value)} is unknown; write {', '.join(FINISH_REASONS[:-1])} or "
                f"{FINISH_REASONS[-1]}."
            )
    return tuple(values)
