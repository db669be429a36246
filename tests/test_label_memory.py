"""The stage label-by-length holds a few answers at a time, however many there are."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from stages._params import Params
from stages.data import grades
from stages.label_by_length import main
from stages.sample import _write_parquet
from tests.test_label_by_length import PROBLEMS, make_params, sample_row, write_problems
from tests.toy_model import save_random_model

NUM_PROBLEMS = 20
THOUGHT = ["ok"] * 400  # a list object of 3 KB as token ids, 1.2 KB as text


def write_project(root: Path, params: Params, num_answers: int) -> None:
    for source in ("control", "test"):
        write_problems(root, source, PROBLEMS[source])
    firsts = {"system1": 100, "system2": 200}
    with_answers = {
        source: [(f"p{number}", f"Q: {number} ?", "2") for number in range(first, first + NUM_PROBLEMS)]
        for source, first in firsts.items()
    }
    for source, rows in with_answers.items():
        write_problems(root, source, rows)
    words = [*THOUGHT, "</think>", "answer", "2", "<eos>"]
    (root / "artifacts").mkdir()
    _write_parquet(
        root / "artifacts" / "samples.parquet",
        (
            sample_row(source, problem, index, words, "stop", params)
            for source, rows in with_answers.items()
            for problem, _, _ in rows
            for index in range(num_answers)
        ),
    )


def peak(root: Path, params: Params) -> tuple[int, int]:
    """Most bytes of Python objects and of Arrow's buffers while the stage runs."""
    usual = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counting)
    tracemalloc.start()
    try:
        main(root, params)
        return tracemalloc.get_traced_memory()[1], counting.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_twice_as_many_answers_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grades, "ROW_GROUP", 1000)
    params = make_params(save_random_model(tmp_path / "model"))
    peaks = {}
    for number in (4, 100, 200):  # the first run imports what it needs
        root = tmp_path / str(number)
        root.mkdir()
        write_project(root, params, number)
        peaks[number] = peak(root, params)
        counted = json.loads((root / "results" / "labels.json").read_text())
        assert counted["num_responses"] == 2 * NUM_PROBLEMS * number
    added = 2 * NUM_PROBLEMS * 100
    for once, twice in zip(peaks[100], peaks[200], strict=True):
        assert twice - once < 200 * added, "bytes per answer: its key, not its text or its ids"
    assert max(peaks[200]) < 2 * NUM_PROBLEMS * 200 * len(THOUGHT) * 8
