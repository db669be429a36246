"""The scores that the checkpoint is chosen by: those of the updates, or of a few checkpoints on the whole control set.

Where an update asks a part of the set (`screening`), the checkpoints that look shortest answer all of it after training, one
after the other, until one is shown to have lost nothing. Appends to `confirmed.jsonl` in the work folder, a row per
checkpoint, so that a killed run goes on.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from statistics import NormalDist
from typing import Any

from stages._errors import StageFailed
from stages._io import AppendLog
from stages._param_blocks import SelectParams
from stages._params import Params
from stages.engines.base import Engine, open_engine
from stages.engines.weights import checkpoint_hashes, require_checkpoint, weights_digest
from stages.training.checkpoints import served
from stages.training.control import Score, answer, score, scores
from stages.training.inputs import Inputs
from stages.training.screening import is_screened
from stages.training.selection import is_eligible

CONFIRMED = "confirmed.jsonl"


def promising(base: Score, rows: list[dict[str, Any]], select: SelectParams) -> list[int]:
    """Steps in the order in which they may answer the whole control set, at most `select.candidates`.

    Fewest tokens first, by the estimates of the updates; those that are shown to have lost more than the margin come last.
    A row keeps its place before another, so what is not among the first now never will be.
    """
    limit = NormalDist().inv_cdf(1.0 - select.alpha)

    def place(row: dict[str, Any]) -> tuple[bool, float, int]:
        loss = base.accuracy - row["accuracy"]
        return loss - limit * row["accuracy_se"] > select.margin, row["mean_tokens"], row["step"]

    return [row["step"] for row in sorted(rows, key=place)][: select.candidates]


def confirmed(
    params: Params, inputs: Inputs, work: Path, rows: list[dict[str, Any]], engine: Engine | None = None
) -> list[tuple[int, Score]]:
    """(step, score on the whole control set) of every checkpoint that may be chosen; `rows` are those of the updates.

    Without an `engine` that is up, one is started if there is anything to answer.
    """
    if not is_screened(params, inputs.control):
        return scores(rows)
    digests = {row["step"]: row["weights"] for row in rows}
    found: list[tuple[int, Score]] = []
    with AppendLog(work / CONFIRMED) as log, contextlib.ExitStack() as stack:
        done = dict(scores(log.rows))
        for step in promising(inputs.base, rows, params.select):
            if step not in done:
                folder = _whole(work, step, digests[step], params.model.dtype)
                if engine is None:
                    engine = stack.enter_context(open_engine(params, folder))
                else:
                    engine.load(folder)
                done[step] = _measured(params, inputs, engine, folder)
                log.append({"step": step} | done[step].row())
            found.append((step, done[step]))
            if is_eligible(inputs.base, done[step], params.select.margin, params.select.alpha):
                break
    return found


def _whole(work: Path, step: int, digest: str, dtype: str) -> Path:
    """The model folder of `step`; StageFailed unless it holds the weights that were in training then."""
    folder = served(work, step)
    if not folder.is_dir() or weights_digest(checkpoint_hashes(folder, dtype)) != digest:
        raise StageFailed(
            f"{folder} does not hold the weights that were trained, so it was changed or removed afterwards; remove {work} and "
            "run `tldr run train` again."
        )
    return folder


def _measured(params: Params, inputs: Inputs, engine: Engine, folder: Path) -> Score:
    require_checkpoint(engine, folder, params.model.dtype)
    number, title = params.ratio.control_samples, f"whole control set, {folder.name}"
    return score(answer(inputs.control, engine, folder, number, params.seed, title))
