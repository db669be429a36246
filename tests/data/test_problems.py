"""Problem files: what is accepted, and the sentence for everything that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages._errors import UserError
from stages.data.problems import Problem, read_problems

GOOD = '{"id": "a", "prompt": "1 + 1 ?", "gold": "2"}'


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_reads_all_fields_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "b", "prompt": "p", "gold": "1", "group": "length-3", "difficulty": 3}', "", GOOD)
    assert read_problems(path) == [
        Problem("b", "p", "1", "length-3", 3.0),
        Problem("a", "1 + 1 ?", "2", None, None),
    ]


def test_null_in_an_optional_field_is_absence(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "a", "prompt": "p", "gold": "1", "group": null, "difficulty": null}')
    assert read_problems(path) == [Problem("a", "p", "1", None, None)]


def test_line_separators_within_strings_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes("\ufeff".encode() + '{"id": "a", "prompt": "x\u2028y", "gold": "1"}\r\n'.encode())
    assert read_problems(path)[0].prompt == "x\u2028y"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ["not JSON"]),
        ("[1]", ["not a JSON object"]),
        ('"text"', ["not a JSON object"]),
        ("[" * 100_000, ["not JSON"]),
        ('{"id": "b", "prompt": "p"}', ['"gold" is missing']),
        ('{"id": "b", "prompt": "p", "gold": 7}', ['"gold" must be a string, not a number', "quotes"]),
        ('{"id": "b", "prompt": null, "gold": "7"}', ['"prompt" must be a string, not null']),
        ('{"id": "b", "prompt": "  ", "gold": "7"}', ['"prompt" is empty']),
        ('{"id": "", "prompt": "p", "gold": "7"}', ['"id" is empty']),
        ('{"id": ["b"], "prompt": "p", "gold": "7"}', ['"id" must be a string, not a list']),
        ('{"id": "b", "prompt": "\\ud800", "gold": "7"}', ['"prompt" holds half of a surrogate pair']),
        ('{"id": "b", "prompt": "p", "gold": "7", "answer": "7"}', ['unknown field "answer"']),
        ('{"id": "b", "prompt": "p", "gold": "7", "group": 3}', ['"group" must be a string, not a number']),
        ('{"id": "b", "prompt": "p", "gold": "7", "difficulty": "hard"}', ['"difficulty" must be a number']),
        ('{"id": "b", "prompt": "p", "gold": "7", "difficulty": true}', ['"difficulty" must be a number, not true']),
        ('{"id": "b", "prompt": "p", "gold": "7", "difficulty": NaN}', ['"difficulty" must be finite']),
        ('{"id": "b", "prompt": "p", "gold": "7", "difficulty": 1' + "0" * 400 + "}", ["must be finite"]),
    ],
)
def test_a_malformed_line_is_named_with_file_line_and_field(tmp_path: Path, line: str, words: list[str]) -> None:
    path = write(tmp_path, GOOD, "", line)
    with pytest.raises(UserError) as caught:
        read_problems(path)
    message = str(caught.value)
    assert f"{path}:3" in message
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'lines 1 and 3 have the same id "a"'):
        read_problems(write(tmp_path, GOOD, "", GOOD))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; create it .`tldr fetch` makes .* or correct data\.\*\.path"):
        read_problems(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_problems(tmp_path)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="not UTF-8"):
        read_problems(latin)
    with pytest.raises(UserError, match="holds no problems; write one JSON object per line"):
        read_problems(write(tmp_path, "", "  "))
