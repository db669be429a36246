"""Problem files: one JSON object per line, checked line by line.

    {"id": "gsm8k-17", "prompt": "...", "gold": "42", "group": "algebra", "difficulty": 3}

`id`, `prompt` and `gold` are non-empty strings; `group` (string) and `difficulty` (number) are optional. Reads a file,
writes nothing. Blank lines are skipped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError

REQUIRED = ("id", "prompt", "gold")
OPTIONAL = ("group", "difficulty")
SCHEMA = 'one JSON object per line with "id", "prompt" and "gold" as strings, optionally "group" and "difficulty"'


@dataclass(frozen=True)
class Problem:
    """A question with its gold answer; `id` is unique within its file."""

    id: str
    prompt: str
    gold: str
    group: str | None
    difficulty: float | None


def read_problems(path: Path) -> list[Problem]:
    """Problems of the file at `path`, in file order; UserError names file, line number and field of the first fault."""
    problems: list[Problem] = []
    first_lines: dict[str, int] = {}
    for number, line in _lines(path):
        problem = _parse(line, f"{path}:{number}")
        if problem.id in first_lines:
            raise UserError(
                f'{path}: lines {first_lines[problem.id]} and {number} have the same id "{problem.id}"; '
                "give every problem its own id."
            )
        first_lines[problem.id] = number
        problems.append(problem)
    if not problems:
        raise UserError(f"{path} holds no problems; write {SCHEMA}, or correct data.*.path in params.yaml.")
    return problems


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and the lines that are not blank."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} does not exist; create it (`tldr fetch` makes the sets of data/sources.yaml) or correct data.*.path in "
            "params.yaml."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct it or data.*.path in params.yaml."
        ) from None
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield number, line


def _parse(line: str, place: str) -> Problem:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{place} is not JSON ({error}); write {SCHEMA}.") from None
    if not isinstance(row, dict):
        raise UserError(f"{place} is not a JSON object; write {SCHEMA}.")
    unknown = sorted(row.keys() - set(REQUIRED) - set(OPTIONAL))
    if unknown:
        raise UserError(f'{place}: unknown field "{unknown[0]}"; write {SCHEMA}.')
    texts = {field: _text(row, field, place) for field in REQUIRED}
    group = None if row.get("group") is None else _text(row, "group", place)
    return Problem(**texts, group=group, difficulty=_number(row, "difficulty", place))


def _text(row: dict[str, Any], field: str, place: str) -> str:
    if field not in row:
        raise UserError(f'{place}: field "{field}" is missing; write {SCHEMA}.')
    value = row[field]
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, (int, float)) else ""
        raise UserError(f'{place}: field "{field}" must be a string, not {_kind(value)}{hint}; write {SCHEMA}.')
    if not value.strip():
        raise UserError(f'{place}: field "{field}" is empty; fill it or remove the line.')
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f'{place}: field "{field}" holds half of a surrogate pair (\\ud8..); correct the escape.')
    return value


def _number(row: dict[str, Any], field: str, place: str) -> float | None:
    value = row.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f'{place}: field "{field}" must be a number, not {_kind(value)}; write {SCHEMA}.')
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f'{place}: field "{field}" must be finite; correct or leave out the field.')
    return number


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")
