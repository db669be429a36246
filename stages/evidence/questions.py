"""The question table: one row per (question, sample), as CSV, so that models can be compared without their answers.

Reads and writes `results/questions/*.csv`. It is imported, not run: `evaluate` writes, `tldr report` reads.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class QuestionRow:
    """One answer. `group` may be empty; `num_tokens` counts the token ids of the whole answer, thought included."""

    task: str
    group: str
    question_id: str
    sample_index: int
    correct: bool
    num_tokens: int
    truncated: bool
    no_think: bool


COLUMNS = tuple(field.name for field in fields(QuestionRow))
FLAGS = {"0": False, "1": True}


def write_questions(path: Path, rows: Iterable[QuestionRow]) -> None:
    """Write `rows` in the given order. `path` is written directly: pass a temporary name where a kill must not show."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(int(value) if isinstance(value, bool) else value for value in astuple(row))


def read_questions(path: Path) -> list[QuestionRow]:
    """Rows in file order; ValueError with file, line and field for a malformed, duplicate or missing row."""
    rows: list[QuestionRow] = []
    first_lines: dict[tuple[str, str, int], int] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            _check_header(path, next(reader, []))
            for cells in reader:
                row = _parse(path, reader.line_num, cells)
                key = (row.task, row.question_id, row.sample_index)
                if key in first_lines:
                    raise _error(
                        path,
                        reader.line_num,
                        "sample_index",
                        f"task {row.task!r}, question {row.question_id!r}, sample {row.sample_index} "
                        f"is already on line {first_lines[key]}",
                    )
                first_lines[key] = reader.line_num
                rows.append(row)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text ({error.reason})") from error
    if not rows:
        raise ValueError(f"{path}, line 2: no rows, so there is no question_id to compare")
    return rows


def _check_header(path: Path, cells: list[str]) -> None:
    for name in COLUMNS:
        if name not in cells:
            raise _error(path, 1, name, f"column missing; the header must be {','.join(COLUMNS)}")
    if tuple(cells) != COLUMNS:
        raise _error(path, 1, cells[-1], f"the header must be exactly {','.join(COLUMNS)}")


def _parse(path: Path, line: int, cells: list[str]) -> QuestionRow:
    if len(cells) != len(COLUMNS):
        field = COLUMNS[min(len(cells), len(COLUMNS) - 1)]
        raise _error(path, line, field, f"{len(cells)} values instead of {len(COLUMNS)}")
    values = dict(zip(COLUMNS, cells, strict=True))
    for name in ("task", "question_id"):
        if not values[name]:
            raise _error(path, line, name, "empty")
    row = QuestionRow(
        task=values["task"],
        group=values["group"],
        question_id=values["question_id"],
        sample_index=_count(path, line, "sample_index", values),
        correct=_flag(path, line, "correct", values),
        num_tokens=_count(path, line, "num_tokens", values),
        truncated=_flag(path, line, "truncated", values),
        no_think=_flag(path, line, "no_think", values),
    )
    if row.truncated and row.correct:
        raise _error(path, line, "correct", "1 for a truncated answer, which counts as wrong")
    return row


def _flag(path: Path, line: int, name: str, values: dict[str, str]) -> bool:
    if values[name] not in FLAGS:
        raise _error(path, line, name, f"{values[name]!r} is neither 0 nor 1")
    return FLAGS[values[name]]


def _count(path: Path, line: int, name: str, values: dict[str, str]) -> int:
    text = values[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise _error(path, line, name, f"{text[:40]!r} is not a whole number of at most 12 digits")
    return int(text)


def _error(path: Path, line: int, field: str, problem: str) -> ValueError:
    return ValueError(f"{path}, line {line}, field {field}: {problem}")
