"""Stage `sample`: n answers per System-1 (easy) and System-2 (hard) prompt from the model to compress.

Reads the model folder and the two problem files; writes artifacts/samples.parquet (one row per answer) and
results/sample.json. A killed run goes on where it was. Run: `tldr run sample` (dvc.yaml: `python -m stages run sample`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages._io import folder_digest, whole_file, write_json
from stages._params import Params, used
from stages._provenance import place, provenance, write_provenance
from stages._work import mark_done, work_folder
from stages.data.problems import read_problems
from stages.data.prompts import decode_text, load_tokenizer
from stages.engines.base import Request, Response, decode_spec, open_engine
from stages.engines.rollouts import draw, make_requests

KEYS = ("seed", "model", "decode", "container.engine", "container.device", "engine", "sample")


def main(root: Path, params: Params) -> None:
    model_path = root / params.model.path
    sources = {"system1": root / params.data.system1.path, "system2": root / params.data.system2.path}
    tokenizer = load_tokenizer(model_path)
    requests = {
        name: make_requests(tokenizer, read_problems(path), params.sample.samples_per_problem)
        for name, path in sources.items()
    }
    work = work_folder(root, "sample", used(params, KEYS), [model_path, *sources.values()])
    rows: list[dict[str, Any]] = []
    with open_engine(params, model_path) as engine:
        shared = {
            "engine": engine.name,
            "model_hash": folder_digest(model_path),
            "decode_hash": decode_spec(params).digest,
        }
        for source, wanted in requests.items():
            log = work / f"{source}.jsonl"
            responses = draw(engine, wanted, decode_spec(params), params.seed, log, f"sample {source}")
            rows += [_row(source, *pair, tokenizer, shared) for pair in zip(wanted, responses, strict=True)]
    _write_parquet(root / "artifacts" / "samples.parquet", rows)
    write_json(root / "results" / "sample.json", summary(rows) | place(params))
    write_provenance(root, provenance(params, "sample", KEYS, __file__), "sample")
    mark_done(work)


def _row(source: str, request: Request, response: Response, tokenizer: Any, shared: dict[str, str]) -> dict[str, Any]:
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
        **shared,
    }


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.list_(pa.int32())
    kinds = {
        "sample_index": pa.int32(),
        "seed": pa.int64(),
        "prompt_ids": ids,
        "token_ids": ids,
        "num_tokens": pa.int32(),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per source: answers, mean tokens and truncation rate."""
    result: dict[str, Any] = {}
    for source in ("system1", "system2"):
        mine = [row for row in rows if row["source"] == source]
        result[source] = {
            "num_responses": len(mine),
            "mean_tokens": sum(row["num_tokens"] for row in mine) / len(mine),
            "truncation_rate": sum(row["finish_reason"] == "length" for row in mine) / len(mine),
        }
    return result
