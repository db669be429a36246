"""`tldr run evaluate --task NAME`: a model on any tasks, beside the pipeline.

Reads params.yaml (seed, decode, engine, evaluate.samples), the model folder and the tasks; writes
.tldr/evaluations/<digest of the model>/: responses/ (finished answers, which later evaluations read) and per task
records.parquet, conditions.json, lm_eval.json and summary.json. Nothing that DVC tracks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from stages._errors import UserError
from stages._io import folder_digest, write_json
from stages._params import Params
from stages._provenance import place

Summary = dict[str, Any]


def evaluate_tasks(root: Path, params: Params, names: Sequence[str], model: str | None, *, as_json: bool) -> None:
    """Evaluate and print; UserError with what is wrong with a task, the model or params.yaml."""
    if params.container.engine != "host":
        raise UserError(
            f"container.engine is {params.container.engine}, but tasks given with --task run on the host; set "
            "container.engine to host, or list the tasks in evaluate.tasks and run `tldr repro evaluate`."
        )
    os.environ.setdefault("TQDM_DISABLE", "1")
    changed = params.evaluate.model_copy(update={"tasks": list(names)})
    model_path = root / (params.model.path if model is None else model)
    summaries = evaluate_model(root, params.model_copy(update={"evaluate": changed}), model_path)
    if as_json:
        click.echo(json.dumps(summaries, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(summaries)


def evaluate_model(root: Path, params: Params, model_path: Path) -> list[Summary]:
    """One summary per task of evaluate.tasks, also written beside the records of the task."""
    from stages.data.conditions import conditions_document
    from stages.data.lm_eval_load import load_tasks
    from stages.data.lm_eval_output import check_verifier, checked_records
    from stages.data.model_folder import check_model
    from stages.data.response_store import evaluations_folder, store_path
    from stages.engines.base import decode_spec, open_engine
    from stages.engines.lm_eval_model import generation_settings
    from stages.engines.lm_eval_run import answer_tasks

    check_model(model_path)
    spec, model_digest = decode_spec(params), folder_digest(model_path)
    folder = evaluations_folder(root, model_digest)
    made_by = {
        "model": str(model_path.relative_to(root) if model_path.is_relative_to(root) else model_path),
        "model_digest": model_digest,
        "decode_digest": spec.digest,
        "seed": params.seed,
    }
    tasks = load_tasks(root, params, generation_settings(spec))
    store, engine = store_path(folder, params, model_digest, spec), open_engine(params, model_path)
    output = answer_tasks(params, model_path, tasks, engine, store, "evaluate", starts_engine=True)
    records = checked_records(output, tasks, params.evaluate.samples)
    for name, mine in records.items():
        check_verifier(name, mine, params.label.max_verifier_error_rate)
    summaries = [_write(root, folder, params, tasks[name], output, records[name], made_by) for name in tasks]
    for summary in summaries:
        conditions = conditions_document(
            params, model_path, model_digest, {summary["task"]: tasks[summary["task"]]}, output
        )
        write_json((root / summary["records"]).with_name("conditions.json"), conditions)
    return summaries


def _write(
    root: Path, folder: Path, params: Params, task: Any, output: Any, records: list[Any], made_by: Summary
) -> Summary:
    from stages.data.lm_eval_output import KEPT, portable_results, write_records

    name, samples = task.task_name, params.evaluate.samples
    mine = folder / re.sub(r"[^\w.-]", "-", name)
    shown = str(mine.relative_to(root))
    results = portable_results({key: {name: output[key][name]} for key in KEPT}, {name: task}, samples, root)
    summary = summarise(task, output["samples"][name], results["results"][name], records)
    summary |= made_by | place(params) | {"records": f"{shown}/records.parquet"}
    write_records(mine / "records.parquet", records)
    write_json(mine / "lm_eval.json", results)
    write_json(mine / "summary.json", summary)
    return summary


def summarise(task: Any, samples: Sequence[Any], results: Mapping[str, Any], records: Sequence[Any]) -> Summary:
    """`metrics` by "metric,filter" with standard errors over questions, and the lengths of the answers.

    `se` is None where a metric is not the mean of what the questions score.
    """
    from stages.data.lm_eval_output import question_row
    from stages.data.lm_eval_stock import question_scores
    from stages.data.lm_eval_tasks import is_own
    from stages.evidence.estimates import mean_and_error, question_tables, token_percentiles

    (table,) = question_tables(question_row(record) for record in records).values()
    if is_own(task):
        metrics = {"correct": _metric(table.question_accuracy.mean(), table.question_accuracy)}
    else:
        scores = question_scores(samples)
        reported = {key: value for key, value in results.items() if "," in key}
        metrics = {key: _metric(value, scores.get(key)) for key, value in reported.items()}
    tokens, tokens_error = mean_and_error(table.question_tokens)
    return {
        "task": task.task_name,
        "metrics": metrics,
        "mean_tokens": tokens,
        "mean_tokens_se": tokens_error,
        "p90_tokens": token_percentiles([table], (90,))[0],
        "truncation_rate": float(table.truncated.mean()),
        "no_think_rate": float(table.no_think.mean()),
        "num_questions": table.num_questions,
        "samples": table.num_samples,
    }


def _metric(value: Any, scores: Any) -> dict[str, Any]:
    import math

    from stages.evidence.estimates import mean_and_error

    if scores is None:
        return {"value": value, "se": None}
    mean, error = mean_and_error(scores)
    return {"value": float(value), "se": error if math.isclose(mean, value, abs_tol=1e-9) else None}


def show(summaries: Sequence[Summary]) -> None:
    """A row per task and metric on standard output; a task's lengths stand in its first row."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("task", "metric", "value", "mean\ntokens", "p90\ntokens", "cut\n%", "no\nthink %"):
        name = column in ("task", "metric")
        table.add_column(column, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for summary in summaries:
        lengths = (
            f"{summary['mean_tokens']:,.1f}",
            f"{summary['p90_tokens']:,.0f}",
            f"{100 * summary['truncation_rate']:.1f}",
            f"{100 * summary['no_think_rate']:.1f}",
        )
        for index, (metric, found) in enumerate(summary["metrics"].items()):
            cells = (summary["task"], metric.replace(",", " "), _value(found), *lengths)
            table.add_row(*map(Text, cells if index == 0 else ("", *cells[1:3])))
    console.print(table)
    first = summaries[0]
    console.print(f"{first['samples']} answers to each question, seed {first['seed']}. Records:", highlight=False)
    for summary in summaries:
        console.print(summary["records"], soft_wrap=True, highlight=False)


def _value(found: Mapping[str, Any]) -> str:
    value, error = found["value"], found["se"]
    if not isinstance(value, (int, float)):
        return "not a number"
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"
