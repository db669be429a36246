"""Faults of a benchmark's file or of its task are one sentence that names file, row and column; golds are cleaned."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from stages._errors import UserError
from stages.data.benchmarks import benchmark_documents
from stages.data.gold_answers import clean_gold

ROW = {"q": "Two?", "a": "2", "n": 1}
TOY = {"columns": {"id": "n", "question": "q", "gold": "a"}, "gold_format": "integer", "source": "some/set, test.jsonl"}


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (
            [ROW, {"q": "x", "n": 2}],
            {},
            r'toy.jsonl: row 2 has no column "a" \(it has q, n\); take the file anew from some',
        ),
        ([ROW | {"a": " "}], {}, r'toy.jsonl: row 1, column "a" is empty; take'),
        ([ROW | {"a": None}], {}, r'row 1, column "a" is empty; take'),
        ([ROW | {"q": ["x"]}], {}, r'row 1, column "q" holds neither text nor a number; take'),
        ([ROW, ROW], {}, r'row 2 has the id "1" of row 1 in column "n"; take'),
        ([ROW], {"num_questions": 2}, r"toy.jsonl has 1 questions instead of 2; take the file anew from some/set"),
        ([ROW], {"where": {"q": "2024"}}, r'has 0 questions whose "q" holds "2024"; take'),
        ([ROW | {"a": "2.5"}], {}, r'row 1, column "a" holds "2.5", which is not an integer; take'),
        ([ROW], {"gold_format": "gsm8k"}, r'row 1, column "a" holds no "####" before the answer; take'),
        ([ROW | {"a": "####"}], {"gold_format": "gsm8k"}, r'row 1, column "a" holds an empty answer; take'),
        ([ROW], {"gold_format": "boxed"}, r'row 1, column "a" holds no \\boxed{...} whose braces balance; take'),
        ([ROW], {"gold_format": "number"}, r'has gold_format "number"; choose one of integer, latex'),
        ([ROW], {"columns": {"question": "q"}}, r"has columns for question; it needs question and gold"),
        ([ROW], {"num_question": 1}, r'has an unknown key "num_question"; use columns, gold_format'),
    ],
)
def test_faults_are_one_sentence(
    tmp_path: Path, rows: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        benchmark_documents(str(path), **(TOY | changes))
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(ROW).encode() * 100)
    parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "whole.parquet")
    table = (tmp_path / "whole.parquet").read_bytes()
    contents = {
        "cut.jsonl.gz": (whole[: len(whole) // 2], r"cut.jsonl.gz cannot be read \(compressed data that end too early"),
        "text.jsonl.gz": (b'{"q": 1}', r"text.jsonl.gz cannot be read \(Not a gzipped file"),
        "bad.jsonl.gz": (
            whole[:12] + b"\xff" * 20 + whole[32:],
            r"bad.jsonl.gz cannot be read \(damaged compressed data",
        ),
        "latin.jsonl": (
            b'{"q": "\xe9"}',
            r"latin.jsonl cannot be read \(not UTF-8 text: .* at byte 7\); take the file",
        ),
        "word.jsonl": (b"version", r"word.jsonl: row 1 is not JSON \(.*\); take the file anew from some/set"),
        "list.jsonl": (b"[1]", r"list.jsonl: row 1 is no JSON object; take the file anew"),
        "cut.parquet": (
            table[:-20],
            r"cut.parquet is no readable Parquet file \(.*\); take the file anew from some/set",
        ),
        "empty.parquet": (b"", r"empty.parquet is no readable Parquet file"),
        "rows.csv": (b"q,a", r"rows.csv is neither .jsonl, .jsonl.gz nor .parquet; name a file"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            benchmark_documents(str(tmp_path / name), **TOY)
        assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_it_comes_from_and_where_it_belongs() -> None:
    message = r"nowhere/b.jsonl does not exist; download some/set, test.jsonl \(Hugging Face data set\) to that place"
    with pytest.raises(UserError, match=message):
        benchmark_documents("nowhere/b.jsonl", **TOY)


@pytest.mark.parametrize(
    ("text", "gold_format", "gold"),
    [
        ("16 - 3 = 13\n#### 1,234", "gsm8k", "1234"),
        ("-1.0", "integer", "-1"),
        ("080 or 081 (both were accepted)", "integer", "80 ||| 81"),
        (r" \frac{1}{2} ", "latex", r"\frac{1}{2}"),
        (r"$\boxed{1}$, hence $\boxed{-3./2}$.", "boxed", "-3/2"),
        (r"\boxed{6.5e-2} eV", "boxed", r"6.5 \times 10^{-2} ||| 6.5e-2"),
        (r"$\boxed{12.5}\%$ weaker", "boxed", r"12.5\%"),
        ("a $\\boxed{x +$ $y\n}$", "boxed", "x + y"),
        ("7:30 pm", "asdiv", r"\text{7:30 pm} ||| 7:30 pm"),
    ],
)
def test_golds_are_cleaned(text: str, gold_format: str, gold: str) -> None:
    assert clean_gold(text, gold_format) == gold
