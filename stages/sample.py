"""Stage `sample`: n answers per System-1 (easy) and System-2 (hard) prompt, and to the control set, from the model to compress.

Reads the model folder and the three problem files; writes artifacts/samples.parquet and, of the control set,
artifacts/control.parquet (one row per answer), and results/sample.json. The control set is answered here so that another way
to move the ratio costs no answers. A killed run goes on where it was; `tldr run sample --shard I/N` draws a share of the
answers beforehand. Run: `tldr run sample` (dvc.yaml: `python -m stages run sample`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from stages._io import folder_digest, whole_file, write_json
from stages._params import Params, used
from stages._provenance import place, provenance, write_provenance
from stages._work import mark_done, work_folder
from stages.core.answers import is_cut
from stages.data.problems import read_problems
from stages.data.prompts import decode_text, load_tokenizer
from stages.engines.base import Request, Response, decode_spec, open_engine
from stages.engines.first_token import check_first_tokens
from stages.engines.rollouts import Drawn, draw, is_drawn, make_requests
from stages.engines.shards import Shard, leave_record, mark_taken, merged_record, take_over
from stages.engines.weights import require_checkpoint

KEYS = ("seed", "model", "decode", "container.engine", "container.device", "engine", "sample", "ratio.bound_samples")
FILES = {
    "samples.parquet": ("system1", "system2"),
    "control.parquet": ("control",),
}  # in artifacts/: sources of its rows
ROW_GROUP = 1000  # rows that are in memory at once

Row = dict[str, Any]


def main(root: Path, params: Params) -> None:
    asked = Asked(root, params)
    record = provenance(params, "sample", KEYS, __file__)
    with work_folder(root, "sample", used(params, KEYS), asked.inputs) as work:
        taken = take_over(root, "sample", work, record)
        _draw(params, asked, asked.requests, work)
        summaries = {source: Summary() for source in asked.requests}
        for name, held in FILES.items():
            _write_parquet(root / "artifacts" / name, _rows(params, asked, held, work, summaries))
        results = {source: summary.figures() for source, summary in summaries.items()}
        write_json(root / "results" / "sample.json", results | place(params))
        write_provenance(root, merged_record(record, taken), "sample")
        mark_done(work)
        mark_taken(taken)


def draw_shard(root: Path, params: Params, shard: Shard) -> None:
    """Draw this shard's share of the answers, and write no outputs."""
    asked = Asked(root, params)
    with shard.work_folder(root, "sample", used(params, KEYS), asked.inputs) as work:
        leave_record(work, provenance(params, "sample", KEYS, __file__))
        _draw(params, asked, {source: shard.take(wanted) for source, wanted in asked.requests.items()}, work)


class Asked:
    """What is asked of which model: `requests` by source, and the `inputs` (files and folders) that they depend on."""

    def __init__(self, root: Path, params: Params) -> None:
        data, number = params.data, params.sample.samples_per_problem
        sources = {
            "system1": (root / data.system1.path, number),
            "system2": (root / data.system2.path, number),
            "control": (root / data.control.path, params.ratio.bound_samples),
        }
        self.model_path = root / params.model.path
        self.tokenizer = load_tokenizer(self.model_path)
        self.requests = {
            name: make_requests(self.tokenizer, read_problems(path), n) for name, (path, n) in sources.items()
        }
        self.inputs = [self.model_path, *(path for path, _ in sources.values())]


def _draw(params: Params, asked: Asked, requests: dict[str, list[Request]], work: Path) -> None:
    """Have the answers to `requests` in `work`, where they are kept as they end; the engine starts if any is missing."""
    spec = decode_spec(params)
    if all(is_drawn(wanted, _log(work, source)) for source, wanted in requests.items()):
        return
    with open_engine(params, asked.model_path, logprobs=True) as engine:
        require_checkpoint(engine, asked.model_path, params.model.dtype)
        check_first_tokens(engine, asked.requests["control"], spec, params.seed, asked.tokenizer)
        for source, wanted in requests.items():
            draw(engine, wanted, spec, params.seed, _log(work, source), f"sample {source}")


def _log(work: Path, source: str) -> Path:
    return work / f"{source}.jsonl"


def _rows(
    params: Params, asked: Asked, sources: Iterable[str], work: Path, summaries: dict[str, Summary]
) -> Iterator[Row]:
    """One row per answer of `sources`, in the order of the requests; each is also counted in its source's summary."""
    shared = {  # the same in every row
        "engine": params.engine.name,
        "model_hash": folder_digest(asked.model_path),
        "decode_hash": decode_spec(params).digest,
    }
    for source in sources:
        wanted = asked.requests[source]
        for request, response in zip(wanted, Drawn(_log(work, source), wanted), strict=True):
            summaries[source].add(response)
            yield _row(source, request, response, asked.tokenizer, shared)


def _row(source: str, request: Request, response: Response, tokenizer: Any, shared: dict[str, str]) -> Row:
    return {
        "source": source,
        "problem_id": response.problem_id,
        "sample_index": response.sample_index,
        "seed": response.seed,
        "prompt_ids": list(request.prompt_ids),
        "token_ids": list(response.token_ids),
        "text": decode_text(tokenizer, response.token_ids),
        "num_tokens": response.num_tokens,
        "finish_reason": response.finish_reason,
        "cumulative_logprob": response.cumulative_logprob,
        **shared,
    }


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, text, count = pa.list_(pa.int32()), pa.string(), pa.int32()
    schema = pa.schema(
        [
            *(("source", text), ("problem_id", text), ("sample_index", count), ("seed", pa.int64())),
            *(("prompt_ids", ids), ("token_ids", ids), ("text", text), ("num_tokens", count)),
            *(("finish_reason", text), ("cumulative_logprob", pa.float64())),
            *(("engine", text), ("model_hash", text), ("decode_hash", text)),
        ]
    )
    left = iter(rows)
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while group := list(islice(left, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


class Summary:
    """Figures of one source, counted answer by answer."""

    def __init__(self) -> None:
        self.num_responses = self.num_tokens = self.num_cut = self.num_repeating = 0

    def add(self, response: Response) -> None:
        self.num_responses += 1
        self.num_tokens += response.num_tokens
        self.num_cut += is_cut(response.finish_reason)
        self.num_repeating += response.finish_reason == "repetition"

    def figures(self) -> dict[str, float]:
        """Answers, mean tokens, share of cut answers, and of those that were cut because they repeat themselves."""
        return {
            "num_responses": self.num_responses,
            "mean_tokens": self.num_tokens / self.num_responses,
            "truncation_rate": self.num_cut / self.num_responses,
            "repetition_rate": self.num_repeating / self.num_responses,
        }
