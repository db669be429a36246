"""Stage `train`: supervised fine-tuning on the System-1 / System-2 mixture, whose ratio follows the control set.

Reads the base model, artifacts/labels, artifacts/schedule.json and artifacts/control_base.csv; writes artifacts/model
(the selected checkpoint), results/train.json and results/ratio.csv (one row per control evaluation). Weights that answer the
control set, and the checkpoint that is kept, are proven to be the ones in training. TRL's trainer trains, in this process or
in several that `accelerate launch` starts (train.launch); checkpoints that answer the whole control set afterwards do so from
here. A killed run goes on from its last checkpoint and ends with the same weights. Run: `tldr run train`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages._io import write_csv, write_json
from stages._params import Params, used
from stages._provenance import place, provenance, write_provenance
from stages._work import mark_done, work_folder, work_path
from stages.training.checkpoints import served
from stages.training.confirmation import confirmed
from stages.training.control import Score
from stages.training.inputs import Inputs, input_files, read_inputs
from stages.training.launch import check_launch, machine_rank, run_launch
from stages.training.pilot import recorded
from stages.training.screening import is_screened
from stages.training.selection import select_checkpoint
from stages.training.session import outside_launch, train

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
    inputs = read_inputs(root, params)
    check_launch(params)
    made_of = (root, "train", used(params, KEYS), input_files(root, params))
    if machine_rank(params, os.environ) > 0:  # machine 0 holds the folder and writes the outputs
        if not _is_trained(params, work_path(*made_of)):
            run_launch(params, root, work_path(*made_of))
        return
    with work_folder(*made_of) as work:
        if params.train.launch.kind == "single":
            train(params, inputs, work)
        elif not _is_trained(params, work):  # no process waits for others that have nothing to do
            run_launch(params, root, work)
        rows = recorded(work)
        last = rows[-1]["step"] if rows else 0
        if last != params.train.max_steps:
            raise StageFailed(f"Training ended at step {last} of {params.train.max_steps}; run it again to go on.")
        with outside_launch():
            scored = dict(confirmed(params, inputs, work, rows))
        _write_outputs(root, params, inputs, work, rows, scored)
        mark_done(work)


def _is_trained(params: Params, work: Path) -> bool:
    rows = recorded(work)
    return bool(rows) and rows[-1]["step"] == params.train.max_steps


def _write_outputs(
    root: Path, params: Params, inputs: Inputs, work: Path, rows: list[dict[str, Any]], scored: dict[int, Score]
) -> None:
    selection = select_checkpoint(inputs.base, list(scored.items()), params.select.margin, params.select.alpha)
    chosen = next(row for row in rows if row["step"] == selection.step)
    columns = (*COLUMNS, "multiplier") if "multiplier" in rows[0] else COLUMNS
    plot = [{name: row[name] for name in columns} for row in rows]
    _publish(root, params, served(work, selection.step), chosen["weights"])
    write_csv(root / "results" / "ratio.csv", plot)
    metrics = {
        "selected_step": selection.step,
        "selection_fallback": int(selection.fallback),
        "num_eligible": selection.num_eligible,
        "control_accuracy": scored[selection.step].accuracy,
        "control_tokens": scored[selection.step].mean_tokens,
        "short_share_mean": sum(row["short_share"] for row in plot) / len(plot),
        "short_share_final": plot[-1]["short_share"],
        **_scored(params, inputs, scored),
        **{f"{source}_too_long": share for source, share in inputs.examples.left_out.items()},
        "control_engine": params.train.control_engine,
        **place(params),
    }
    write_json(root / "results" / "train.json", metrics)
    record = provenance(params, "train", KEYS, __file__, weights=chosen["weights"])
    write_provenance(root, record, "train")


def _scored(params: Params, inputs: Inputs, scored: dict[int, Score]) -> dict[str, Any]:
    """What the checkpoints scored that answered the whole control set after training; nothing where every update asked it."""
    if not is_screened(params, inputs.control):
        return {}
    found = {
        f"step-{step:05d}": {
            "accuracy": score.accuracy,
            "accuracy_se": score.accuracy_error,
            "mean_tokens": score.mean_tokens,
            "mean_tokens_se": score.tokens_error,
            "truncation_rate": score.truncation_rate,
        }
        for step, score in scored.items()
    }
    return {"scored": found}


def _publish(root: Path, params: Params, folder: Path, digest: str) -> None:
    from stages.training.snapshot import publish

    if not folder.is_dir():
        raise StageFailed(
            f"{folder}, the selected checkpoint, was removed; remove {folder.parent} and run train again."
        )
    publish(folder, root / "artifacts" / "model", params.model.dtype, digest)
