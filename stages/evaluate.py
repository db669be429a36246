"""Stage `evaluate` (items base and candidate): k answers per test question through lm-eval, and the comparison of both.

Reads the model folder (base: model.path, candidate: artifacts/model), tasks/ and the test problems; candidate also
results/questions/base.csv and results/train.json. Writes artifacts/evaluations/{which}/responses.parquet (one row per
answer) and lm_eval.json (what lm-eval aggregated), results/questions/{which}.csv (the question table), and for the
candidate results/metrics.json (for the base results/base.json). A killed run goes on where it was.
Run: `tldr run evaluate@base` (dvc.yaml: `python -m stages run evaluate@base`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import read_json, whole_file, write_json
from stages._params import Params, used
from stages._provenance import place, provenance, write_provenance
from stages._work import mark_done, work_folder
from stages.data.lm_eval_output import (
    Record,
    check_records,
    check_verifier,
    document_id,
    portable_results,
    task_records,
)
from stages.data.lm_eval_tasks import load_tasks
from stages.data.model_folder import check_model
from stages.data.prompts import decode_text, load_tokenizer, prompt_ids
from stages.engines.base import Engine, decode_spec, open_engine
from stages.evidence.questions import QuestionRow, read_questions, write_questions

KEYS = (
    *("seed", "model", "data.verifier", "decode", "container.engine", "container.device", "engine", "evaluate"),
    "label.max_verifier_error_rate",
)
ITEMS = ("base", "candidate")
SELECTION = ("selected_step", "selection_fallback")  # of results/train.json


def main(root: Path, params: Params, which: str, make_engine: Callable[[Params, Path], Engine] = open_engine) -> None:
    """Evaluate one of `ITEMS` in the workspace `root`."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bar over its own bookkeeping; tqdm reads it when imported
    root = root.resolve()
    model_path = _model_path(root, params, which)
    with make_engine(params, model_path) as engine:  # its workers load the model while lm-eval is imported here
        from stages.engines.lm_eval_model import generation_settings

        tasks = load_tasks(root, params, generation_settings(decode_spec(params)))
        base, selection = _reference(root, tasks, params) if which == "candidate" else ([], {})
        work = _work_folder(root, params, which, model_path, tasks)
        output = _answer(params, which, model_path, tasks, work / "answers.jsonl", engine)
    records = _records(output, tasks, params)
    rows = [_question_row(record) for record in records]
    folder = root / "artifacts" / "evaluations" / which
    _write_parquet(folder / "responses.parquet", records)
    write_json(folder / "lm_eval.json", portable_results(output, root))
    with whole_file(_table_path(root, which)) as temporary:
        write_questions(temporary, rows)
    if which == "candidate":
        write_json(root / "results" / "metrics.json", _metrics(params, base, rows) | selection | place(params))
    else:
        write_json(root / "results" / "base.json", _base_metrics(rows) | place(params))
    write_provenance(root, provenance(params, "evaluate", KEYS, __file__), f"evaluate-{which}")
    mark_done(work)


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
        (name, document_id(doc, index)) for name, task in tasks.items() for index, doc in enumerate(task.eval_docs)
    }
    if {(row.task, row.question_id) for row in rows} != asked:
        raise UserError(f"{path.relative_to(root)} holds other questions than are asked now; {again} again.")
    if len(rows) != len(asked) * num_samples or any(row.sample_index >= num_samples for row in rows):
        raise UserError(
            f"{path.relative_to(root)} does not hold evaluate.samples = {num_samples} answers to each question; "
            f"{again} again."
        )
    return rows


def _work_folder(root: Path, params: Params, which: str, model_path: Path, tasks: dict[str, Any]) -> Path:
    """Where finished answers wait for the others; its name covers model, questions, decode specification and code."""
    settings = used(params, KEYS)
    problem_files = {Path(task.config.dataset_kwargs["path"]) for task in tasks.values()}
    return work_folder(root, f"evaluate-{which}", settings, [model_path, root / "tasks", *sorted(problem_files)])


def _answer(params: Params, which: str, model_path: Path, tasks: dict[str, Any], log_path: Path, engine: Engine) -> Any:
    """lm-eval's output. `evaluate`, not `simple_evaluate`: that one ends with a survey of the machine (2 s, git)."""
    from lm_eval.evaluator import evaluate

    from stages.engines.lm_eval_model import EngineLM

    tokenizer = load_tokenizer(model_path)
    model = EngineLM(
        engine,
        decode_spec(params),
        params.seed,
        encode=partial(prompt_ids, tokenizer),
        decode=partial(decode_text, tokenizer),
        bos_id=_bos_id(tokenizer),
        log_path=log_path,
        title=f"evaluate {which}",
    )
    return evaluate(model, {"tasks": tasks, "groups": {}}, log_samples=True, bootstrap_iters=0)


def _bos_id(tokenizer: Any) -> int | None:
    """The BOS that prompts must hold once; None if the model's template writes none (Qwen and others have no BOS)."""
    template = str(tokenizer.chat_template)
    writes = tokenizer.bos_token is not None and ("bos_token" in template or tokenizer.bos_token in template)
    return int(tokenizer.bos_token_id) if writes else None


def _records(output: Any, tasks: dict[str, Any], params: Params) -> list[Record]:
    """The checked records of all tasks."""
    records = []
    for name, task in tasks.items():
        mine = task_records(name, output["samples"][name])
        check_records(name, mine, output["results"][name], len(task.eval_docs) * params.evaluate.samples)
        check_verifier(name, mine, params.label.max_verifier_error_rate)
        records += mine
    return records


def _base_metrics(rows: list[QuestionRow]) -> dict[str, Any]:
    num_answers = len(rows)
    return {
        "accuracy": sum(row.correct for row in rows) / num_answers,
        "mean_tokens": sum(row.num_tokens for row in rows) / num_answers,
        "truncation_rate": sum(row.truncated for row in rows) / num_answers,
        "no_think_rate": sum(row.no_think for row in rows) / num_answers,
    }


def _question_row(record: Record) -> QuestionRow:
    return QuestionRow(
        task=record["task"],
        group=record["group"],
        question_id=record["question_id"],
        sample_index=record["sample_index"],
        correct=record["correct"],
        num_tokens=record["num_tokens"],
        truncated=record["finish_reason"] == "length",
        no_think=not record["thinking"],
    )


def _write_parquet(path: Path, records: list[Record]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    small, flag = pa.int32(), pa.bool_()
    kinds = {"sample_index": small, "num_tokens": small, "seed": pa.int64(), "token_ids": pa.list_(small)}
    kinds |= {"thinking": flag, "correct": flag, "verifier_error": flag}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in records[0]])
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(records, schema=schema), temporary)


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
        resamples=evaluate.resamples,
        seed=params.seed,
    )
    metrics: dict[str, Any] = flat_metrics(report)
    return metrics
