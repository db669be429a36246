"""The question table: one row per (question, sample), as CSV, so that models can be compared without their answers.

Reads and writes `results/questions/*.csv`. It is imported, not run: `evaluate` writes, `tldr report` reads.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class QuestionRow(NamedTuple):
    """One answer. `group` may be empty; `num_tokens` counts the token ids of the whole answer, thought included."""

    task: str
    group: str
    question_id: str
    sample_index: int
    correct: bool
    num_tokens: int
    truncated: bool
    no_think: bool


COLUMNS = QuestionRow._fields
FLAGS = {"0": False, "1": True}
MAX_DIGITS = 12  # below it no sum of counts overflows


def write_questions(path: Path, rows: Iterable[QuestionRow]) -> None:
    """Write `rows` in the given order. `path` is written directly: pass a temporary name where a kill must not show."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(int(value) if isinstance(value, bool) else value for value in row)


def read_questions(path: Path) -> list[QuestionRow]:
    """Rows in file order; ValueError with file, line and field for a malformed, duplicate or missing row."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(distinct_rows(str(path), stream))


def distinct_rows(name: str, lines: Iterable[str]) -> Iterator[QuestionRow]:
    """`question_rows` without the lines; ValueError also for a row that repeats an earlier one, naming both lines."""
    first_lines: dict[tuple[str, str, int], int] = {}
    for line, row in question_rows(name, lines):
        earlier = first_lines.setdefault((row.task, row.question_id, row.sample_index), line)
        if earlier != line:
            where = f"task {row.task!r}, question {row.question_id!r}, sample {row.sample_index}"
            raise _error(name, line, "sample_index", f"{where} is already on line {earlier}")
        yield row


def question_rows(name: str, lines: Iterable[str]) -> Iterator[tuple[int, QuestionRow]]:
    """(line, row) of the CSV text `lines`, as a stream; ValueError names the file (`name`), the line and the field."""
    reader = csv.reader(lines, strict=True)
    found = False
    try:
        _check_header(name, next(reader, []))
        for cells in reader:
            found = True
            yield reader.line_num, _parse(name, reader.line_num, cells)
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: not CSV ({error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}, after line {reader.line_num}: not UTF-8 text ({error.reason})") from error
    if not found:
        raise ValueError(f"{name}, line 2: no rows, so there is no question_id to compare")


def _check_header(name: str, cells: list[str]) -> None:
    for column in COLUMNS:
        if column not in cells:
            raise _error(name, 1, column, f"column missing; the header must be {','.join(COLUMNS)}")
    if tuple(cells) != COLUMNS:
        raise _error(name, 1, cells[-1], f"the header must be exactly {','.join(COLUMNS)}")


def _parse(name: str, line: int, cells: list[str]) -> QuestionRow:
    if len(cells) != len(COLUMNS):
        field = COLUMNS[min(len(cells), len(COLUMNS) - 1)]
        raise _error(name, line, field, f"{len(cells)} values instead of {len(COLUMNS)}")
    task, group, question_id, index, correct, tokens, truncated, no_think = cells
    try:
        row = QuestionRow(
            task, group, question_id, _count(index), FLAGS[correct], _count(tokens), FLAGS[truncated], FLAGS[no_think]
        )
    except (KeyError, ValueError):
        raise _cell_error(name, line, cells) from None
    if not task or not question_id:
        raise _error(name, line, "question_id" if task else "task", "empty")
    if row.truncated and row.correct:
        raise _error(name, line, "correct", "1 for a truncated answer, which counts as wrong")
    return row


def _count(text: str) -> int:
    if text.isdecimal() and text.isascii() and len(text) <= MAX_DIGITS:
        return int(text)
    raise ValueError


def _cell_error(name: str, line: int, cells: list[str]) -> ValueError:
    """What is wrong with the first malformed cell; one of them is."""
    values = dict(zip(COLUMNS, cells, strict=True))
    for column in ("sample_index", "correct", "num_tokens", "truncated", "no_think"):
        text = values[column]
        try:
            _count(text) if column in ("sample_index", "num_tokens") else FLAGS[text]
        except ValueError:
            problem = f"{text[:40]!r} is not a whole number of at most {MAX_DIGITS} digits"
            return _error(name, line, column, problem)
        except KeyError:
            return _error(name, line, column, f"{text[:40]!r} is neither 0 nor 1")
    raise AssertionError(cells)


def _error(name: str, line: int, field: str, problem: str) -> ValueError:
    return ValueError(f"{name}, line {line}, field {field}: {problem}")
