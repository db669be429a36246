"""Stage `evaluate` (items base and candidate): k answers per test question through lm-eval, and the comparison of both.

Reads the model folder (base: model.path, candidate: artifacts/model), the tasks that evaluate.tasks names (tasks/, YAML
files, tasks of lm-eval) and their questions; candidate also results/questions/base.csv and results/train.json. Writes
artifacts/evaluations/{which}/responses.parquet (one row per answer) and lm_eval.json (what lm-eval aggregated),
results/questions/{which}.csv (the question table) and {which}.json (the conditions it was measured under; also beside the
answers), results/budget/{which}.csv, results/pareto/{which}.csv and results/lengths/{which}.csv (plots), and for the candidate
results/metrics.json (for the base results/base.json). A killed run goes on where it was; `tldr run evaluate@base --shard I/N`
draws a share of the answers beforehand.
Run: `tldr run evaluate@base` (dvc.yaml: `python -m stages run evaluate@base`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import file_digest, folder_digest, read_json, whole_file, write_csv, write_json
from stages._params import Params, used
from stages._provenance import place, provenance, write_provenance
from stages._work import mark_done, work_folder
from stages.data.conditions import conditions_document
from stages.data.lm_eval_load import load_tasks, task_files
from stages.data.lm_eval_output import (
    check_verdicts,
    check_verifier,
    checked_records,
    document_id,
    portable_results,
    question_row,
    write_records,
)
from stages.data.lm_eval_tasks import is_own
from stages.data.model_folder import check_model
from stages.data.response_store import store_path
from stages.engines.base import Engine, decode_spec, open_engine
from stages.engines.lm_eval_run import answer_tasks, draw_tasks
from stages.engines.shards import Shard, has_shards, leave_record, mark_taken, merged_record, take_over
from stages.evidence.questions import QuestionRow, read_questions, write_questions

KEYS = (
    *("seed", "model", "data.verifier", "decode", "container.engine", "container.device", "engine", "evaluate"),
    *("label.max_verifier_error_rate", "label.histogram_bins"),
)
ITEMS = ("base", "candidate")
SELECTION = ("selected_step", "selection_fallback")  # of results/train.json


MakeEngine = Callable[[Params, Path], Engine]


def main(root: Path, params: Params, which: str, make_engine: MakeEngine = open_engine) -> None:
    """Evaluate one of `ITEMS` in the workspace `root`."""
    root = root.resolve()
    model_path = _model_path(root, params, which)
    with contextlib.ExitStack() as held:  # the work until its results are in place, the engine only while it answers
        engine, starts_engine = make_engine(params, model_path), has_shards(root, _stage(which))
        with contextlib.nullcontext() if starts_engine else engine:
            tasks = _load_tasks(root, params)
            base, selection = _reference(root, tasks, params) if which == "candidate" else ([], {})
            work = held.enter_context(work_folder(root, _stage(which), *_made_of(root, params, model_path, tasks)))
            record = provenance(params, "evaluate", KEYS, __file__)
            taken = take_over(root, _stage(which), work, record)
            model_digest = folder_digest(model_path)
            store = store_path(work, params, model_digest, decode_spec(params))
            title = f"evaluate {which}"
            output = answer_tasks(params, model_path, tasks, engine, store, title, starts_engine=starts_engine)
        rows = _write_answers(root, params, which, tasks, output)
        _write_conditions(root, which, conditions_document(params, model_path, model_digest, tasks, output))
        if which == "candidate":
            write_json(root / "results" / "metrics.json", _metrics(params, base, rows) | selection | place(params))
        else:
            write_json(root / "results" / "base.json", _base_metrics(rows) | place(params))
        write_provenance(root, merged_record(record, taken), f"evaluate-{which}")
        mark_done(work)
        mark_taken(taken)


def draw_shard(root: Path, params: Params, which: str, shard: Shard, make_engine: MakeEngine = open_engine) -> None:
    """Draw this shard's share of the answers to evaluate one of `ITEMS`, and write no outputs."""
    root = root.resolve()
    model_path = _model_path(root, params, which)
    with make_engine(params, model_path) as engine:
        tasks = _load_tasks(root, params)
        with shard.work_folder(root, _stage(which), *_made_of(root, params, model_path, tasks)) as work:
            leave_record(work, provenance(params, "evaluate", KEYS, __file__))
            store = store_path(work, params, folder_digest(model_path), decode_spec(params))
            draw_tasks(params, model_path, tasks, engine, store, f"evaluate {which}", shard)


def _load_tasks(root: Path, params: Params) -> dict[str, Any]:
    """lm-eval's tasks by name. Workers of an engine that runs already load the model while lm-eval is imported here."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bar over its own bookkeeping; tqdm reads it when imported
    from stages.engines.lm_eval_model import generation_settings

    return load_tasks(root, params, generation_settings(decode_spec(params)))


def _write_answers(root: Path, params: Params, which: str, tasks: dict[str, Any], output: Any) -> list[QuestionRow]:
    """Check and write what came out, answer by answer; the question table."""
    samples = params.evaluate.samples
    by_task = checked_records(output, tasks, samples)
    for name, records in by_task.items():
        check_verifier(name, records, params.label.max_verifier_error_rate)
        check_verdicts(name, records)
    records = [record for mine in by_task.values() for record in mine]
    rows = [question_row(record) for record in records]
    folder = root / "artifacts" / "evaluations" / which
    write_records(folder / "responses.parquet", records)
    write_json(folder / "lm_eval.json", portable_results(output, tasks, samples, root))
    with whole_file(_table_path(root, which)) as temporary:
        write_questions(temporary, rows)
    _write_plots(root, params, which, rows)
    return rows


def _write_plots(root: Path, params: Params, which: str, rows: list[QuestionRow]) -> None:
    """What DVC plots: accuracy at token budgets, accuracy against tokens, lengths by correctness."""
    from stages.evidence.budget import budget_curve
    from stages.evidence.estimates import question_tables
    from stages.evidence.figures import length_edges, length_histogram, pareto_rows

    tables = question_tables(rows)
    edges = length_edges(params.decode.max_tokens, params.label.histogram_bins)
    lengths = [row for table in tables.values() for row in length_histogram(table, edges)]
    plots = {"budget": budget_curve(tables, params.budgets), "pareto": pareto_rows(tables), "lengths": lengths}
    for name, plotted in plots.items():
        write_csv(root / "results" / name / f"{which}.csv", plotted)


def _write_conditions(root: Path, which: str, conditions: dict[str, Any]) -> None:
    """Beside the records, and beside the table with its digest, so that neither can be taken for another run's."""
    write_json(root / "artifacts" / "evaluations" / which / "conditions.json", conditions)
    table = _table_path(root, which)
    write_json(table.with_suffix(".json"), conditions | {"table": file_digest(table)})


def _model_path(root: Path, params: Params, which: str) -> Path:
    if which not in ITEMS:
        raise UserError(f'evaluate has no item "{which}"; use evaluate@base or evaluate@candidate.')
    path = root / (params.model.path if which == "base" else "artifacts/model")
    if which == "candidate" and not path.is_dir():
        raise UserError(f"{path.relative_to(root)} does not exist; run `tldr repro train` to make it.")
    check_model(path)
    return path


def _table_path(root: Path, which: str) -> Path:
    return root / "results" / "questions" / f"{which}.csv"


def _reference(root: Path, tasks: dict[str, Any], params: Params) -> tuple[list[QuestionRow], dict[str, Any]]:
    """What the candidate is compared with, and which checkpoint it is."""
    train = read_json(root / "results" / "train.json", "tldr repro train")
    missing = [name for name in SELECTION if name not in train]
    if missing:
        raise UserError(f"results/train.json does not say {missing[0]}; run `tldr repro train` to make it again.")
    return _read_base(root, tasks, params.evaluate.samples), {name: train[name] for name in SELECTION}


def _read_base(root: Path, tasks: dict[str, Any], num_samples: int) -> list[QuestionRow]:
    """The base model's question table; UserError unless it answers the very questions that come now, as often."""
    path = _table_path(root, "base")
    again = "run `tldr repro evaluate@base` to make it"
    if not path.is_file():
        raise UserError(f"{path.relative_to(root)} does not exist; {again}.")
    try:
        rows = read_questions(path)
    except ValueError as error:
        raise UserError(f"{error}; remove the file and {again} again.") from None
    asked = {
        (name, document_id(doc, index)) for name, task in tasks.items() for index, doc in enumerate(task.task_docs)
    }
    if {(row.task, row.question_id) for row in rows} != asked:
        raise UserError(f"{path.relative_to(root)} holds other questions than are asked now; {again} again.")
    if len(rows) != len(asked) * num_samples or any(row.sample_index >= num_samples for row in rows):
        raise UserError(
            f"{path.relative_to(root)} does not hold evaluate.samples = {num_samples} answers to each question; "
            f"{again} again."
        )
    return rows


def _stage(which: str) -> str:
    """Name of the stage's work."""
    return f"evaluate-{which}"


def _made_of(root: Path, params: Params, model_path: Path, tasks: dict[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """Settings and inputs that answers depend on: `stages._work.work_folder` names the work after them.

    Questions of lm-eval's own tasks are not hashed: an answer is kept under its prompt, and is drawn again for another.
    """
    files = {Path(task.config.dataset_kwargs["path"]) for task in tasks.values() if is_own(task)}
    files |= set(task_files(root, params.evaluate.tasks))
    return used(params, KEYS), [model_path, root / "tasks", *sorted(files)]


def _base_metrics(rows: list[QuestionRow]) -> dict[str, Any]:
    num_answers = len(rows)
    return {
        "accuracy": sum(row.correct for row in rows) / num_answers,
        "mean_tokens": sum(row.num_tokens for row in rows) / num_answers,
        "truncation_rate": sum(row.truncated for row in rows) / num_answers,
        "no_think_rate": sum(row.no_think for row in rows) / num_answers,
    }


def _metrics(params: Params, base: list[QuestionRow], candidate: list[QuestionRow]) -> dict[str, Any]:
    """The comparison of both models as flat numbers."""
    from stages.evidence.estimates import question_tables
    from stages.evidence.summary import compare, flat_metrics

    evaluate = params.evaluate
    report = compare(
        question_tables(base),
        question_tables(candidate),
        margin=evaluate.margin,
        alpha=evaluate.alpha,
        confidence=evaluate.confidence,
        resamples=evaluate.resamples,
        seed=params.seed,
    )
    metrics: dict[str, Any] = flat_metrics(report)
    return metrics
