"""Stage `sample`: its table and summary, and that answers do not pile up in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from stages.data.response_store import ResponseStore
from stages.engines.base import DecodeSpec, Request, Response
from stages.engines.rollouts import draw
from stages.sample import Summary, _write_parquet

SPEC = DecodeSpec(1.0, 1.0, 4000)


class LongAnswers:
    """Answers of 4,000 tokens, a list object of 32 KB each."""

    name = "long"

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        for request in requests:
            yield Response(request.problem_id, request.sample_index, 1, tuple(range(4000)), "stop", -3.5)


def test_memory_grows_by_less_than_1_kib_per_finished_answer(tmp_path: Path) -> None:
    requests = [Request(f"problem-{p}", sample, (1, 2, 3)) for p in range(150) for sample in range(4)]
    draw(LongAnswers(), requests[:8], SPEC, 1, tmp_path / "warm.jsonl", "warm")  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        with ResponseStore(tmp_path / "log.jsonl") as store:
            before, _ = tracemalloc.get_traced_memory()
            for request in requests:
                store.add(request, Response(request.problem_id, request.sample_index, 1, tuple(range(4000)), "stop"))
            after, _ = tracemalloc.get_traced_memory()
        assert after - before < 1024 * len(requests)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        drawn = draw(LongAnswers(), requests, SPEC, 1, tmp_path / "other.jsonl", "test")  # type: ignore[arg-type]
        assert sum(response.num_tokens for response in drawn) == 4000 * len(requests)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1024 * len(requests) + 4_000_000, "a few answers at a time, however many there are"


def test_rows_are_written_in_groups_and_read_back_whole(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, object]]:
        for index in range(2500):
            yield {
                "source": "system1",
                "problem_id": f"p{index}",
                "sample_index": 0,
                "seed": 2**62 + index,
                "prompt_ids": [1, index],
                "token_ids": [index] * 3,
                "text": "t",
                "num_tokens": 3,
                "finish_reason": "stop",
                "cumulative_logprob": None if index % 2 else -0.5,
                "engine": "hf",
                "model_hash": "m",
                "decode_hash": "d",
            }

    _write_parquet(tmp_path / "samples.parquet", rows())
    table = pq.read_table(tmp_path / "samples.parquet")
    assert table.to_pylist() == list(rows())
    assert pq.ParquetFile(tmp_path / "samples.parquet").num_row_groups == 3


def test_the_summary_counts_answers_that_were_cut_and_why() -> None:
    summary = Summary()
    for reason, length in (("stop", 10), ("length", 50), ("repetition", 30), ("stop", 10)):
        summary.add(Response("a", 0, 1, (1,) * length, reason))
    assert summary.figures() == {
        "num_responses": 4,
        "mean_tokens": 25.0,
        "truncation_rate": 0.5,
        "repetition_rate": 0.25,
    }
