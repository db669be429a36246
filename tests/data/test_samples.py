"""Reading samples.parquet a batch at a time: ids, thoughts and the order of the answers, against plain Python."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages._errors import UserError
from stages.data.problems import Problem
from stages.data.samples import check_keys, last_positions, read_batches, read_keys, read_samples

CLOSE = 5
PROBLEMS = {
    source: [Problem(f"{source[-1]}{i}", "?", "1", None, None) for i in range(3)] for source in ("system1", "system2")
}
KEYS = [(source, problem.id, index) for source, rows in PROBLEMS.items() for problem in rows for index in range(4)]


def row(source: str, problem: str, index: int, num_tokens: int) -> dict[str, Any]:
    return {
        "source": source,
        "problem_id": problem,
        "sample_index": index,
        "prompt_ids": [1, index],
        "token_ids": list(range(num_tokens)),
        "text": f"text {problem} {index}",
        "num_tokens": num_tokens,
        "finish_reason": "stop",
        "model_hash": "m",
        "decode_hash": "d",
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    return path


def plain_position(ids: list[int]) -> int:
    return len(ids) - 1 - ids[::-1].index(CLOSE) if CLOSE in ids else 0


@given(st.lists(st.lists(st.integers(3, 6), max_size=6), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 8))
def test_the_last_position_is_what_plain_python_finds(rows: list[list[int]], start: int, length: int) -> None:
    """Also in a slice, whose offsets do not begin at 0."""
    column = pa.array(rows, pa.list_(pa.int32()))
    batch = pa.RecordBatch.from_arrays([column], names=["token_ids"]).slice(start, length)
    assert last_positions(batch, CLOSE) == [plain_position(ids) for ids in rows[start : start + length]]


def test_samples_are_the_rows_of_every_row_group(tmp_path: Path) -> None:
    rows = [row("system1", f"p{i}", i % 3, i % 7) for i in range(2500)]
    path = write(tmp_path / "samples.parquet", rows)
    names = ("source", "problem_id", "sample_index", "prompt_ids", "token_ids", "text", "num_tokens", "finish_reason")
    found = [{name: getattr(sample, name) for name in names} for sample in read_samples(path, "d")]
    assert found == [{name: each[name] for name in names} for each in rows]
    assert max(batch.num_rows for batch in read_batches(path, "d")) <= 1000
    assert list(read_keys(path, "d")) == [(each["source"], each["problem_id"], each["sample_index"]) for each in rows]


def test_a_fault_in_the_last_row_is_found_before_anything_is_graded(tmp_path: Path) -> None:
    rows = [row("system1", f"p{i}", 0, 3) for i in range(2500)]
    for change, message in (
        ({"num_tokens": 4}, "answer 0 to p2499 is damaged"),
        ({"finish_reason": None}, "answer 0 to p2499 is damaged"),
        ({"token_ids": None}, "answer 0 to p2499 is damaged"),
        ({"decode_hash": "e"}, "other decode parameters"),
    ):
        path = write(tmp_path / "samples.parquet", [*rows[:-1], rows[-1] | change])
        with pytest.raises(UserError, match=message):
            list(read_keys(path, "d"))
    with pytest.raises(UserError, match="another model"):
        read_samples(write(tmp_path / "samples.parquet", [*rows[:-1], rows[-1] | {"model_hash": "n"}]), "d", "m")


def test_answers_in_any_order_are_read_in_that_of_the_problems(tmp_path: Path) -> None:
    assert check_keys(KEYS, PROBLEMS, "f") is None
    mixed = Random(3).sample(KEYS, len(KEYS))
    order = check_keys(mixed, PROBLEMS, "f")
    assert order is not None and [mixed[place] for place in order] == KEYS
    path = write(tmp_path / "samples.parquet", [row(*key, num_tokens=3) for key in mixed])
    (batch,) = read_batches(path, "d", order=order)
    found = zip(*(batch.column(name).to_pylist() for name in ("source", "problem_id", "sample_index")), strict=True)
    assert list(found) == KEYS


def test_the_first_repeated_answer_of_the_file_is_named() -> None:
    for keys in ([*KEYS, KEYS[7]], [KEYS[7], *KEYS, KEYS[2]]):
        with pytest.raises(UserError, match="holds answer 3 to system1:11 twice"):
            check_keys(keys, PROBLEMS, "f")


def test_a_problem_with_fewer_answers_is_named() -> None:
    assert [len(list(group)) for _, group in groupby(KEYS, key=lambda key: key[:2])] == [4] * 6
    with pytest.raises(UserError, match="f holds 3 answers to system2:22 but 4 to others"):
        check_keys(KEYS[:-1], PROBLEMS, "f")
    with pytest.raises(UserError, match="f holds 0 answers to system1:10 but 0 to others"):
        check_keys([], PROBLEMS, "f")
    assert isinstance(check_keys(KEYS[::-1], PROBLEMS, "f"), np.ndarray)
