"""JSON Lines of any origin: read line by line, compressed or not, with every fault as one sentence. Writes nothing."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from stages._errors import UserError
from stages.data.evaluations.source import Source

MAX_LINE = 64 * 1024 * 1024  # bytes; 8 answers of 32,768 tokens take about 1 MB
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")  # the escapes that can leave a string no file can hold

Row = dict[str, Any]


def json_rows(source: Source, *, allow_nan: bool = False) -> Iterator[tuple[int, Row]]:
    """(line, object) of every line that is not blank; UserError names file and line. An empty file is an error.

    `allow_nan` is for files that copy whole records of a data set, where an empty cell may be NaN.
    """
    found = False
    with source.open() as stream:
        for number, line in bounded_lines(source, stream):
            if line.strip():
                found = True
                yield number, _row(source, number, line, float if allow_nan else _no_number)
    if not found:
        raise UserError(f"{source.name} is empty; name a file with one JSON object per line.")


def bounded_lines(source: Source, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number, line with its end) of `stream`, unpacked if it is gzip; UserError for a line above `MAX_LINE` bytes."""
    packed = stream.read(len(GZIP)) == GZIP
    stream.seek(0)
    if source.path.name.endswith(".gz") and not packed:
        raise UserError(f"{source.name} is named .gz but is not compressed; rename it or take it anew.")
    content = cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if packed else stream
    number = 1
    while line := _next_line(source, content, number):
        yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        number += 1


def read_whole(source: Source) -> bytes:
    """Content of a small file; UserError above `MAX_LINE` bytes."""
    with source.open() as stream:
        content = stream.read(MAX_LINE + 1)
    if len(content) > MAX_LINE:
        raise UserError(f"{source.name} is larger than {MAX_LINE >> 20} MiB; name the right file.")
    return content


def _next_line(source: Source, content: IO[bytes], number: int) -> bytes:
    """One line, never more of it than the limit; empty at the end."""
    try:
        line = content.readline(MAX_LINE + 1)
    except EOFError:
        raise UserError(
            f"{source.name}, line {number}: the compressed data end too early; take the file anew."
        ) from None
    except (OSError, zlib.error) as error:  # also gzip.BadGzipFile
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{source.name}, line {number}: cannot be read ({reason}); take the file anew.") from None
    if len(line) > MAX_LINE:
        raise UserError(
            f"{source.name}, line {number}: longer than {MAX_LINE >> 20} MiB; write one JSON object per question and line."
        )
    return line


def _row(source: Source, number: int, line: bytes, constant: Callable[[str], float]) -> Row:
    place = f"{source.name}, line {number}"
    try:
        row = json.loads(line.decode(), parse_constant=constant, object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: not UTF-8 text ({error.reason} at byte {error.start}); take the file anew."
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error.msg} at column {error.colno}); correct the line.") from None
    except RecursionError:
        raise UserError(f"{place}: brackets nested too deep; write one flat JSON object per line.") from None
    except ValueError as error:
        raise UserError(f"{place}: {_reason(error)}; correct the line.") from None
    if not isinstance(row, dict):
        raise UserError(f"{place}: a JSON {kind(row)} instead of an object; write one object per line.")
    if HALF_PAIR.search(line):
        _check_characters(place, row)
    return row


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice[:40]} stands twice in one object")
    return row


def _reason(error: ValueError) -> str:
    """Python's own words about a number of thousands of digits name a setting of the interpreter."""
    return "a whole number with thousands of digits" if "integer string conversion" in str(error) else str(error)


def _check_characters(place: str, row: Row) -> None:
    for name, value in row.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            field = name.encode(errors="replace").decode()
            raise UserError(
                f"{place}, field {field}: half of a surrogate pair, which is no character; write it anew with whole characters."
            ) from None


def kind(value: Any) -> str:
    """JSON's name for the type of `value`."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def shown(value: Any, length: int = 40) -> str:
    """`value` as JSON, cut to `length` characters for a message."""
    text = json.dumps(value)
    return text if len(text) <= length else f"{text[:length]}..."
