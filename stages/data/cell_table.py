"""Published tables as CSV: a row per model and benchmark, with its mean accuracy and mean tokens.

    base_model,method,benchmark,accuracy_pct,mean_tokens

Columns: benchmark (or task); accuracy as a share, or accuracy_pct in percent; mean_tokens (or tokens). Every other column
is a label; rows with the same labels are one group. `FILE#label/label` names a group. Reads a file, writes nothing.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stages._errors import UserError
from stages.evidence.cells import Cell

BENCHMARK = ("benchmark", "task")
ACCURACY = ("accuracy", "accuracy_pct")
TOKENS = ("mean_tokens", "tokens")
ROLES = (BENCHMARK, ACCURACY, TOKENS)
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
TOKEN_RANGE = (1e-3, 1e9)  # outside it lies no mean length of an answer
MAX_NAMED = 30  # groups that a sentence lists

Labels = tuple[str, ...]
Groups = dict[Labels, list[Cell]]


def is_cell_table(path: Path | str) -> bool:
    """Whether the header of the file, or of the FILE of `FILE#labels`, has an accuracy or token column of such a table.

    False for anything else, also for what cannot be read: a table with a column too few is for `read_cells` to refuse.
    """
    file, _ = split_spec(str(path))
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            header = {name.strip() for name in next(csv.reader([stream.readline(65_536)]), [])}
    except (OSError, ValueError, csv.Error):
        return False
    return not header.isdisjoint((*ACCURACY, *TOKENS)) and header.isdisjoint(("question_id", "budget"))


def split_spec(spec: str) -> tuple[Path, str | None]:
    """`FILE#labels` as file and labels; a name of a file may hold a # itself."""
    ends = [index for index, character in enumerate(spec) if character == "#"]
    for end in [len(spec), *ends]:
        if end and Path(spec[:end]).is_file():
            return Path(spec[:end]), spec[end + 1 :] or None
    file, _, labels = spec.partition("#")
    return Path(file), labels or None


def read_cells(path: Path) -> Groups:
    """The cells of every group, both in file order; UserError names file, line and field of the first fault."""
    groups: Groups = {}
    lines: dict[tuple[Labels, str], int] = {}
    highest = 0.0
    rows = _rows(path)
    _, header = next(rows, (1, []))
    columns = _columns(path, header)
    for line, cells in rows:
        labels, cell = _parse(path, line, header, columns, cells)
        first = lines.setdefault((labels, cell.benchmark), line)
        if first != line:
            whose = f" of {name(labels)}" if labels else ""
            raise _error(path, line, columns[0], f"{cell.benchmark}{whose} is already on line {first}; remove one")
        groups.setdefault(labels, []).append(cell)
        highest = max(highest, cell.accuracy)
    if not groups:
        raise UserError(f"{path}, line 2: there are no rows; write one per group and benchmark.")
    if columns[1] == "accuracy_pct" and 0 < highest <= 0.01:
        raise _error(
            path, 2, columns[1], "no value of the column is above 1 %; call it accuracy if it holds shares from 0 to 1"
        )
    return groups


def select_group(path: Path, groups: Groups, wanted: str | None) -> Labels:
    """The labels that `wanted` means: all of them, their end, or one of them, joined by `/`; None where there is one group.

    UserError lists the groups where none or several fit.
    """
    if wanted is None:
        fitting = list(groups)
        asked = f"{path} holds {len(groups)} groups"
    else:
        fitting = [labels for labels in groups if name(labels) == wanted] or [
            labels for labels in groups if wanted in labels or name(labels).endswith(f"/{wanted}")
        ]
        asked = f'"{wanted}" fits {len(fitting) or "none"} of the groups of {path}'
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(f"{asked}; write {path}#LABELS with one of {listed(fitting or groups)}.")


def name(labels: Labels) -> str:
    """How a group is written in a message, a table and behind `#`."""
    return "/".join(labels)


def listed(groups: Iterable[Labels]) -> str:
    names = [name(labels) for labels in groups]
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and stripped values; blank lines are skipped."""
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                line = reader.line_num
                if any(cell.strip() for cell in cells):
                    yield line, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, after line {line}: not UTF-8 text ({error.reason}); save it as UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {line + 1}: not CSV ({error}); correct its quotes.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a CSV file.") from None


def _columns(path: Path, header: Sequence[str]) -> tuple[str, str, str]:
    """Names of the columns of benchmark, accuracy and tokens."""
    if not header:
        raise UserError(f"{path}, line 1: the file is empty; write a header and a row per group and benchmark.")
    for column in header:
        if not column or header.count(column) > 1:
            problem = f"stands {header.count(column)} times in the header" if column else "a column without a name"
            raise _error(path, 1, column or "(empty)", f"{problem}; give every column a name of its own")
    found = []
    for role in ROLES:
        present = [column for column in role if column in header]
        if len(present) != 1:
            problem = "both are in the header; remove one" if present else "column missing; add it, separated by commas"
            raise _error(path, 1, " or ".join(role), problem)
        found.append(present[0])
    benchmark, accuracy, tokens = found
    return benchmark, accuracy, tokens


def _parse(
    path: Path, line: int, header: Sequence[str], columns: tuple[str, str, str], cells: Sequence[str]
) -> tuple[Labels, Cell]:
    if len(cells) != len(header):
        column = header[min(len(cells), len(header) - 1)]
        raise _error(path, line, column, f"{len(cells)} values instead of {len(header)}; correct the commas")
    values = dict(zip(header, cells, strict=True))
    benchmark, accuracy, tokens = columns
    texts = [column for column in header if column not in (accuracy, tokens)]
    for column in texts:
        if not values[column] or not values[column].isprintable():
            problem = "holds a control character; remove it" if values[column] else "empty; fill it"
            raise _error(path, line, column, problem)
    percent = accuracy == "accuracy_pct"
    share = _number(path, line, accuracy, values, (0.0, 100.0 if percent else 1.0)) / (100 if percent else 1)
    cell = Cell(values[benchmark], share, _number(path, line, tokens, values, TOKEN_RANGE))
    return tuple(values[column] for column in texts if column != benchmark), cell


def _number(path: Path, line: int, column: str, values: Mapping[str, str], bounds: tuple[float, float]) -> float:
    text, (low, high) = values[column], bounds
    shown = f"{text[:40]!r}"
    if not NUMBER.fullmatch(text):
        raise _error(path, line, column, f"{shown} is not a number; write it with digits and a decimal point only")
    value = float(text)
    if not (math.isfinite(value) and low <= value <= high):
        hint = "; in percent the column is called accuracy_pct" if column == "accuracy" and 1 < value <= 100 else ""
        raise _error(path, line, column, f"{shown} is not between {low:g} and {high:g}{hint or '; correct it'}")
    return value


def _error(path: Path, line: int, field: str, problem: str) -> UserError:
    return UserError(f"{path}, line {line}, field {field}: {problem}.")
