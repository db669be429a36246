"""Examples from label files, which of them a step has, and how they are cut into micro-batches."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages._errors import StageFailed, UserError
from stages.core.mixing import Window
from stages.training.examples import Batches, Example, Examples, micro_batches, read_examples, realised_shares, row
from tests.training.toy_stage import toy_examples


def write_labels(folder, lengths):
    for source, sizes in lengths.items():
        rows = [{"problem_id": f"p{i}", "prompt_ids": [1, 2], "token_ids": [5] * size} for i, size in enumerate(sizes)]
        (folder / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_examples_that_do_not_fit_are_left_out_and_counted(tmp_path):
    write_labels(tmp_path, {"system1": [3, 50, 60, 70], "system2": [8, 8]})
    found = read_examples(tmp_path, max_length=10)
    assert [len(e.token_ids) for e in found.by_source["system1"]] == [3]
    assert [len(e.token_ids) for e in found.by_source["system2"]] == [8, 8]
    assert found.left_out == {"system1": 0.75, "system2": 0.0}


def test_a_source_of_which_nothing_fits_stops_the_stage(tmp_path):
    write_labels(tmp_path, {"system1": [3], "system2": [80, 90]})
    with pytest.raises(
        StageFailed, match=r"None of the 2 system2 examples .* train\.max_length = 10 .* longest has 92"
    ):
        read_examples(tmp_path, max_length=10)


def test_an_empty_source_stops_the_stage(tmp_path):
    write_labels(tmp_path, {"system1": [], "system2": [8]})
    with pytest.raises(StageFailed, match=r"system1\.jsonl holds no example"):
        read_examples(tmp_path, max_length=10)


def test_missing_labels_say_what_to_run(tmp_path):
    with pytest.raises(UserError, match="tldr run label-by-length"):
        read_examples(tmp_path, max_length=10)


@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_batches_follow_the_windows(unit):
    """Every example of one length, so both units ask for the same; each example once per epoch."""
    examples = {name: [Example(str(i), (i,), (i,)) for i in range(8)] for name in ("system1", "system2")}
    windows = [Window(0, 0.25), Window(64, 0.75)]

    def batch(step, seed):
        return Batches(Examples(examples, {}), 16, seed, unit).at(windows, step)

    batches = [batch(step, 3) for step in range(8)]
    assert [sum(source == "system1" for source, _ in each) for each in batches] == [4, 4, 4, 4, 12, 12, 12, 12]
    assert set(Counter((source, example.problem_id) for each in batches for source, example in each).values()) == {8}
    assert batches[2] == batch(2, 3) != batch(2, 4)


def test_realised_shares_count_examples_and_response_tokens():
    short, long = toy_examples().by_source["system1"][0], toy_examples().by_source["system2"][0]
    example_share, token_share = realised_shares([[("system1", short), ("system2", long)], [("system2", long)]])
    assert math.isclose(example_share, 1 / 3)
    assert math.isclose(token_share, 3 / 17)


@given(
    lengths=st.lists(st.integers(1, 5000), min_size=24, max_size=24),
    num_processes=st.sampled_from([1, 2, 3, 4]),
    padding_free=st.booleans(),
)
def test_processes_share_a_batch_without_rest(lengths, num_processes, padding_free):
    """Each example is in one micro-batch of one process, and every process has as many micro-batches."""
    examples = [Example(str(i), (1,), (5,) * length) for i, length in enumerate(lengths)]
    parts = [
        micro_batches(examples, 2, rank, num_processes, padding_free=padding_free) for rank in range(num_processes)
    ]
    assert {len(each) for each in parts} == {12 // num_processes}
    assert sorted(int(example.problem_id) for each in parts for part in each for example in part) == list(range(24))
    assert all(part for each in parts for part in each)
    tokens = [sum(example.num_tokens for example in part) for each in parts for part in each]
    if padding_free:  # no part could give its last example to another and be the shorter for it
        assert max(tokens) - min(tokens) <= max(example.num_tokens for example in examples)
    else:
        padding = sum(2 * max(e.num_tokens for e in part) for each in parts for part in each) - sum(tokens)
        ordered = sorted(example.num_tokens for example in examples)
        assert padding == sum(ordered[1::2]) - sum(ordered[::2])  # the least that pairs can have


def test_only_the_response_carries_loss():
    assert row(Example("a", (1, 2), (3, 4, 5))) == {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, -100, 3, 4, 5]}
