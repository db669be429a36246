"""Stage `train`: supervised fine-tuning on the System-1 / System-2 mixture, whose ratio follows the control set.

Reads the base model, artifacts/labels, artifacts/schedule.json and artifacts/control_base.csv; writes artifacts/model
(the selected checkpoint), results/train.json and results/ratio.csv (one row per control evaluation). Weights that answer the
control set, and the checkpoint that is kept, are proven to be the ones in training. A killed run goes on from its last
checkpoint and ends with the same weights. Run: `tldr run train`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from stages._errors import StageFailed, UserError
from stages._io import AppendLog, read_json, write_csv, write_json
from stages._params import Params, used
from stages._provenance import place, provenance, write_provenance
from stages._work import mark_done, work_folder
from stages.core.mixing import Window
from stages.training.control import ControlSet, Score, answer, control_set, score
from stages.training.examples import SOURCES, batch_at, read_examples, realised_shares
from stages.training.loop import Trainer, publish
from stages.training.selection import Selection, select_checkpoint
from stages.training.serving import ControlServer, open_server, proven
from stages.training.steering import decide, scores, windows_so_far

KEYS = (
    "seed",
    "model",
    "data.verifier",
    "decode",
    "container.engine",
    "container.device",
    "engine",
    "ratio",
    "train",
    "select",
)
COLUMNS = (  # of results/ratio.csv; `multiplier` follows under the lagrangian controller
    *("step", "short_share", "next_short_share", "example_share", "token_share", "training_loss"),
    *("mean_tokens", "mean_tokens_se", "accuracy", "accuracy_se", "truncation_rate"),
    *("benefit1", "benefit1_se", "benefit2", "benefit2_se"),
)


def main(root: Path, params: Params) -> None:
    control = control_set(root, params)
    schedule = _read_schedule(root, control)
    labels = root / "artifacts" / "labels"
    examples = read_examples(labels, params.train.max_length)
    base = _read_control(root, control)
    model_path = root / params.model.path
    inputs = [model_path, root / params.data.control.path, root / "artifacts" / "schedule.json"]
    work = work_folder(
        root, "train", used(params, KEYS), [*inputs, *(labels / f"{source}.jsonl" for source in SOURCES)]
    )
    with open_server(params, model_path) as server, AppendLog(work / "windows.jsonl") as log:
        trainer = Trainer(params, model_path, work)
        rows = list(log.rows)
        while len(rows) < params.train.max_steps // params.train.update_every:
            windows = windows_so_far(params, schedule, rows)
            shares = _train_window(trainer, params, examples, windows)
            measured, weights = _evaluate(control, server, trainer, params)
            row = decide(params, schedule, windows, rows, trainer.step, measured, base) | shares
            rows.append(row | {"weights": weights})
            log.append(rows[-1])
    selection = select_checkpoint(base, scores(rows), params.select.margin, params.select.alpha)
    _write_outputs(root, params, trainer, rows, selection)
    mark_done(work)


def _read_schedule(root: Path, control: ControlSet) -> dict[str, Any]:
    path = root / "artifacts" / "schedule.json"
    schedule: dict[str, Any] = read_json(path, "tldr run ratio-schedule")
    for name, value in control.hashes.items():
        if schedule.get(name) != value:
            what = "decode specification" if name == "decode_hash" else "control items"
            raise UserError(f"{path} was measured with another {what}; run `tldr repro ratio-schedule` and then train.")
    return schedule


def _read_control(root: Path, control: ControlSet) -> Score:
    path = root / "artifacts" / "control_base.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run `tldr run ratio-schedule` to make it.")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if [row["question_id"] for row in rows] != [problem.id for problem in control.problems]:
        raise UserError(f"{path} holds other questions than the control set; run `tldr repro ratio-schedule`.")
    return Score(tuple(float(row["accuracy"]) for row in rows), tuple(float(row["tokens"]) for row in rows), 0.0)


def _train_window(
    trainer: Trainer, params: Params, examples: dict[str, Any], windows: list[Window]
) -> dict[str, float]:
    """Train to the end of the last window (from wherever a killed run left it) and save; returns the realised shares."""
    settings = params.train
    first = (len(windows) - 1) * settings.update_every
    batches = [
        batch_at(examples, windows, step, settings.batch_size, params.seed)
        for step in range(first, first + settings.update_every)
    ]
    losses = [
        trainer.train_step([example for _, example in batches[step - first]])
        for step in range(trainer.step, first + settings.update_every)
    ]
    if losses:
        trainer.save(sum(losses) / len(losses))
    example_share, token_share = realised_shares(batches)
    return {
        "example_share": example_share,
        "token_share": token_share,
        "training_loss": trainer.mean_loss(trainer.step),
    }


def _evaluate(control: ControlSet, server: ControlServer, trainer: Trainer, params: Params) -> tuple[Score, str]:
    """The control score of the model in training, and the digest of the weights that answered."""
    checkpoint = trainer.checkpoint(trainer.step)
    with proven(server, trainer.model, checkpoint) as (engine, weights):
        answers = answer(
            control, engine, checkpoint, params.ratio.control_samples, params.seed, f"control {checkpoint.name}"
        )
    return score(answers), weights


def _write_outputs(
    root: Path, params: Params, trainer: Trainer, rows: list[dict[str, Any]], selection: Selection
) -> None:
    if trainer.step != params.train.max_steps:
        raise StageFailed(f"Training ended at step {trainer.step} of {params.train.max_steps}; run it again to go on.")
    columns = (*COLUMNS, "multiplier") if "multiplier" in rows[0] else COLUMNS
    plot = [{name: row[name] for name in columns} for row in rows]
    chosen = next(row for row in rows if row["step"] == selection.step)
    publish(trainer.checkpoint(selection.step), root / "artifacts" / "model", params.model.dtype, chosen["weights"])
    write_csv(root / "results" / "ratio.csv", plot)
    metrics = {
        "selected_step": selection.step,
        "selection_fallback": int(selection.fallback),
        "num_eligible": selection.num_eligible,
        "control_accuracy": chosen["accuracy"],
        "control_tokens": chosen["mean_tokens"],
        "short_share_mean": sum(row["short_share"] for row in plot) / len(plot),
        "short_share_final": plot[-1]["short_share"],
        "control_engine": params.train.control_engine,
        **place(params),
    }
    write_json(root / "results" / "train.json", metrics)
    record = provenance(params, "train", KEYS, __file__, weights=chosen["weights"])
    write_provenance(root, record, "train")
