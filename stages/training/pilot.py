"""The first process's part of the closed loop: write the model, have it answer the control set, decide, record.

Writes the model folders and `windows.jsonl` of the work folder: one row per control evaluation, all that the next decision
needs. No torch until the first evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from stages._io import AppendLog
from stages._params import Params
from stages.training.checkpoints import keep_served, served
from stages.training.control import Score, answer, score
from stages.training.course import Course
from stages.training.examples import Batches, realised_shares
from stages.training.inputs import Inputs
from stages.training.progress import TrainingProgress
from stages.training.selection import select_checkpoint
from stages.training.serving import ControlServer, proven
from stages.training.steering import decide, scores

WINDOWS = "windows.jsonl"


def prune(work: Path, params: Params, base: Score, rows: list[dict[str, Any]]) -> None:
    """Remove the model folders that no later decision can select: all but that of the last row and the best so far."""
    if rows:
        best = select_checkpoint(base, scores(rows), params.select.margin, params.select.alpha)
        keep_served(work, {best.step, rows[-1]["step"]})


class Pilot:
    """`interruptible` is entered while the control set is answered: the last checkpoint is on disk, a stop need not wait."""

    def __init__(
        self,
        params: Params,
        inputs: Inputs,
        work: Path,
        log: AppendLog,
        server: ControlServer,
        batches: Batches,
        course: Course,
        progress: TrainingProgress,
        interruptible: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._params, self._inputs, self._work, self._log, self._server = params, inputs, work, log, server
        self._batches, self._course, self.progress, self._interruptible = batches, course, progress, interruptible
        self._rows = list(log.rows)

    def decide(self, step: int, weights: dict[str, Any], model: Any, losses: list[float]) -> float:
        """The share of the window that starts after `step`; `losses` are those of the window that ended there."""
        with self.progress.paused(), self._interruptible():
            measured, digest = self._evaluate(step, weights, model)
        row = decide(self._params, self._inputs.schedule, self._rows, step, measured, self._inputs.base)
        row |= self._realised(step) | {"training_loss": math.fsum(losses) / len(losses), "weights": digest}
        self._rows.append(row)
        self._log.append(row)
        prune(self._work, self._params, self._inputs.base, self._rows)
        self.progress.control(step, measured.accuracy, measured.mean_tokens, row["next_short_share"])
        return float(row["next_short_share"])

    def watch(self, step: int, loss: float) -> None:
        """After every step, for the display."""
        pairs = self._batches.at(self._course.windows, step - 1)
        num_tokens = sum(example.num_tokens for _, example in pairs)
        self.progress.step(step, loss, num_tokens, self._course.share_at(step - 1))

    def _evaluate(self, step: int, weights: dict[str, Any], model: Any) -> tuple[Score, str]:
        """The control score of the weights in training, and their digest."""
        from stages.training.snapshot import Snapshot, write_model

        params = self._params
        folder = served(self._work, step)
        write_model(weights, self._inputs.model_path, params.model.dtype, folder)
        with proven(self._server, Snapshot(weights, folder, model)) as (engine, digest):
            answers = answer(
                self._inputs.control,
                engine,
                folder,
                params.ratio.control_samples,
                params.seed,
                f"control {folder.name}",
            )
        return score(answers), digest

    def _realised(self, step: int) -> dict[str, float]:
        """The shares that the window that ended at `step` really had."""
        first = step - self._params.train.update_every
        batches = [self._batches.at(self._course.windows, past) for past in range(first, step)]
        example_share, token_share = realised_shares(batches)
        return {"example_share": example_share, "token_share": token_share}
