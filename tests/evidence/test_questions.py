"""The question table on disk: round trip, and errors that name file, line and field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.evidence.questions import COLUMNS, QuestionRow, question_rows, read_questions, write_questions

ROWS = [
    QuestionRow("tiny", "length-1", "test-1", 0, True, 31, False, False),
    QuestionRow("tiny", "length-1", "test-1", 1, False, 640, True, False),
    QuestionRow("math, hard", "", 'a "quoted"\nid é', 0, False, 0, False, True),
]
HEADER = ",".join(COLUMNS)
GOOD = "tiny,length-1,q1,0,1,30,0,0"


def test_round_trip_is_exact_and_stable(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    write_questions(first, ROWS)
    assert read_questions(first) == ROWS
    write_questions(second, read_questions(first))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().splitlines()[:2] == [HEADER, "tiny,length-1,test-1,0,1,31,0,0"]
    assert b"\r" not in first.read_bytes()


@pytest.mark.parametrize(
    ("row", "line", "field"),
    [
        ("tiny,length-1,q2,0,yes,30,0,0", 3, "correct"),
        ("tiny,length-1,q2,0,1,30.5,0,0", 3, "num_tokens"),
        ("tiny,length-1,q2,0,1,-3,0,0", 3, "num_tokens"),
        ("tiny,length-1,q2,0,1,,0,0", 3, "num_tokens"),
        ("tiny,length-1,q2,0,1,9999999999999999999999,0,0", 3, "num_tokens"),
        ("tiny,length-1,q2,first,1,30,0,0", 3, "sample_index"),
        ("tiny,length-1,q2,0,0,30,2,0", 3, "truncated"),
        ("tiny,length-1,q2,0,0,30,0,nan", 3, "no_think"),
        ("tiny,length-1,,0,0,30,0,0", 3, "question_id"),
        (",length-1,q2,0,0,30,0,0", 3, "task"),
        ("tiny,length-1,q2,0,1,30,0", 3, "no_think"),
        ("tiny,length-1,q2,0,1,30,0,0,9", 3, "no_think"),
        ("tiny,length-1,q2,0,1,30,1,0", 3, "correct"),
        (GOOD, 3, "sample_index"),
    ],
)
def test_malformed_row_names_file_line_and_field(tmp_path: Path, row: str, line: int, field: str) -> None:
    path = tmp_path / "candidate.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{row}\n")
    with pytest.raises(ValueError, match=rf"candidate\.csv, line {line}, field {field}: "):
        read_questions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1, field task"),
        (HEADER.replace(",num_tokens", "").encode(), "line 1, field num_tokens"),
        (HEADER.encode() + b",extra\n", "line 1, field extra"),
        (HEADER.encode() + b"\n", "line 2: no rows"),
        (HEADER.encode() + b'\ntiny,"unclosed', "line 2: not CSV"),
        (HEADER.encode() + b"\ntiny,\xff\xfe,q,0,1,3,0,0\n", "not UTF-8"),
    ],
)
def test_malformed_file_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "base.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_questions(path)
    assert "base.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_come_as_a_stream_with_their_lines() -> None:
    def lines() -> Iterator[str]:
        yield f"{HEADER}\n"
        yield 'tiny,"two\n'
        yield 'lines",q1,0,1,30,0,0\n'
        yield f"{GOOD}\n"
        raise AssertionError("read ahead")

    rows = question_rows("stream", lines())
    assert next(rows) == (3, QuestionRow("tiny", "two\nlines", "q1", 0, True, 30, False, False))
    assert next(rows) == (4, QuestionRow("tiny", "length-1", "q1", 0, True, 30, False, False))


def test_a_row_that_stands_twice_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "base.csv"
    path.write_text(f"{HEADER}\n{GOOD}\ntiny,length-1,q2,0,1,30,0,0\n{GOOD}\n")
    with pytest.raises(ValueError, match=r"line 4, field sample_index: .*'q1', sample 0 is already on line 2"):
        read_questions(path)
