"""Examples from label files, and which of them stand in a batch."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from stages._errors import StageFailed, UserError
from stages.core.mixing import Window
from stages.training.examples import Example, batch_at, read_examples


def write_labels(folder, lengths):
    for source, sizes in lengths.items():
        rows = [{"prompt_ids": [1, 2], "token_ids": [5] * size} for size in sizes]
        (folder / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_examples_that_do_not_fit_are_left_out(tmp_path):
    write_labels(tmp_path, {"system1": [3, 50], "system2": [8, 9]})
    found = read_examples(tmp_path, max_length=10)
    assert [len(e.token_ids) for e in found["system1"]] == [3]
    assert [len(e.token_ids) for e in found["system2"]] == [8]


def test_a_source_of_which_nothing_fits_stops_the_stage(tmp_path):
    write_labels(tmp_path, {"system1": [3], "system2": [80, 90]})
    with pytest.raises(StageFailed, match=r"None of the 2 system2 examples fits in train\.max_length = 10"):
        read_examples(tmp_path, max_length=10)


def test_missing_labels_say_what_to_run(tmp_path):
    with pytest.raises(UserError, match="tldr run label-by-length"):
        read_examples(tmp_path, max_length=10)


def test_batches_follow_the_windows_and_use_every_example_once_per_epoch():
    examples = {name: [Example((i,), (i,)) for i in range(8)] for name in ("system1", "system2")}
    windows = [Window(0, 0.25), Window(64, 0.75)]
    batches = [batch_at(examples, windows, step, 16, seed=3) for step in range(8)]
    shares = [sum(source == "system1" for source, _ in batch) for batch in batches]
    assert shares == [4, 4, 4, 4, 12, 12, 12, 12]
    seen = Counter((source, example.prompt_ids) for batch in batches for source, example in batch)
    assert set(seen.values()) == {8}
    assert batches[2] == batch_at(examples, windows, 2, 16, seed=3)
    assert batches[2] != batch_at(examples, windows, 2, 16, seed=4)
