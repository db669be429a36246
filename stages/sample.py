"""Stage `sample`: n answers per System-1 (easy) and System-2 (hard) prompt, and to the control set, from the model to compress.

Reads the model folder and the three problem files; writes artifacts/samples.parquet and, of the control set,
artifacts/control.parquet (one row per answer), and results/sample.json. The control set is answered here so that another way
to move the ratio costs no answers. A killed run goes on where it was. Run: `tldr run sample` (dvc.yaml: `python -m stages run
sample`).
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
from stages.engines.base import Engine, Request, Response, decode_spec, open_engine
from stages.engines.first_token import check_first_tokens
from stages.engines.rollouts import Drawn, draw, make_requests
from stages.engines.weights import require_checkpoint

KEYS = ("seed", "model", "decode", "container.engine", "container.device", "engine", "sample", "ratio.bound_samples")
FILES = {
    "samples.parquet": ("system1", "system2"),
    "control.parquet": ("control",),
}  # in artifacts/: sources of its rows
ROW_GROUP = 1000  # rows that are in memory at once

Row = dict[str, Any]


def main(root: Path, params: Params) -> None:
    model_path = root / params.model.path
    data, number = params.data, params.sample.samples_per_problem
    sources = {
        "system1": (root / data.system1.path, number),
        "system2": (root / data.system2.path, number),
        "control": (root / data.control.path, params.ratio.bound_samples),
    }
    tokenizer = load_tokenizer(model_path)
    requests = {name: make_requests(tokenizer, read_problems(path), n) for name, (path, n) in sources.items()}
    inputs = [model_path, *(path for path, _ in sources.values())]
    with work_folder(root, "sample", used(params, KEYS), inputs) as work:
        drawn, shared = _draw(params, model_path, requests, work, tokenizer)
        summaries = {source: Summary() for source in sources}
        for name, held in FILES.items():
            rows = _rows({source: requests[source] for source in held}, drawn, tokenizer, shared, summaries)
            _write_parquet(root / "artifacts" / name, rows)
        results = {source: summary.figures() for source, summary in summaries.items()}
        write_json(root / "results" / "sample.json", results | place(params))
        write_provenance(root, provenance(params, "sample", KEYS, __file__), "sample")
        mark_done(work)


def _draw(
    params: Params, model_path: Path, requests: dict[str, list[Request]], work: Path, tokenizer: Any
) -> tuple[dict[str, Drawn], dict[str, str]]:
    """The answers of each source, kept in `work` as they end, and the columns that are the same in every row."""
    spec = decode_spec(params)
    with open_engine(params, model_path, logprobs=True) as engine:
        require_checkpoint(engine, model_path, params.model.dtype)
        check_first_tokens(engine, requests["control"], spec, params.seed, tokenizer)
        drawn = {
            source: draw(engine, wanted, spec, params.seed, work / f"{source}.jsonl", f"sample {source}")
            for source, wanted in requests.items()
        }
        return drawn, _shared(engine, model_path, params)


def _shared(engine: Engine, model_path: Path, params: Params) -> dict[str, str]:
    """Columns that are the same in every row."""
    return {
        "engine": engine.name,
        "model_hash": folder_digest(model_path),
        "decode_hash": decode_spec(params).digest,
    }


def _rows(
    requests: dict[str, list[Request]],
    drawn: dict[str, Drawn],
    tokenizer: Any,
    shared: dict[str, str],
    summaries: dict[str, Summary],
) -> Iterator[Row]:
    """One row per answer, in the order of the requests; each is also counted in its source's summary."""
    for source, wanted in requests.items():
        for request, response in zip(wanted, drawn[source], strict=True):
            summaries[source].add(response)
            yield _row(source, request, response, tokenizer, shared)


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
