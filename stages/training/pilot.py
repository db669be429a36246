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
from stages.training.confirmation import confirmed, promising
from stages.training.control import Score, answer, score, scores
from stages.training.course import Course
from stages.training.examples import Batches, realised_shares
from stages.training.inputs import Inputs
from stages.training.progress import TrainingProgress
from stages.training.screening import asked, estimate, is_screened, part
from stages.training.selection import select_checkpoint
from stages.training.serving import ControlServer, proven
from stages.training.steering import decide

WINDOWS = "windows.jsonl"


def recorded(work: Path) -> list[dict[str, Any]]:
    """The rows of the control evaluations so far; a torn last line is dropped."""
    if not (work / WINDOWS).exists():
        return []
    with AppendLog(work / WINDOWS) as log:
        return list(log.rows)


def prune(work: Path, params: Params, inputs: Inputs, rows: list[dict[str, Any]]) -> None:
    """Remove the model folders that no later decision can select: all but that of the last row and the best so far, which
    are several where the whole control set is answered after training."""
    if not rows:
        return
    if is_screened(params, inputs.control):
        best = promising(inputs.base, rows, params.select)
    else:
        best = [select_checkpoint(inputs.base, scores(rows), params.select.margin, params.select.alpha).step]
    keep_served(work, {*best, rows[-1]["step"]})


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
        questions = asked(self._params, len(self._inputs.control.problems), len(self._rows))
        with self.progress.paused(), self._interruptible():
            found, digest = self._evaluate(step, weights, model, questions)
        measured = estimate(self._inputs.base, questions, found, self._params.ratio.control_samples)
        row = decide(self._params, self._inputs.schedule, self._rows, step, measured)
        row |= self._realised(step) | {"training_loss": math.fsum(losses) / len(losses), "weights": digest}
        row |= found.row() | {"questions": questions}
        self._rows.append(row)
        self._log.append(row)
        prune(self._work, self._params, self._inputs, self._rows)
        self.progress.control(step, measured.accuracy, measured.mean_tokens, row["next_short_share"])
        return float(row["next_short_share"])

    def confirm(self) -> None:
        """After training: the engine that is up answers what the choice of the checkpoint needs, if it can read folders."""
        engine = self._server.reader()
        if engine is not None:
            with self._interruptible():
                confirmed(self._params, self._inputs, self._work, self._rows, engine)

    def watch(self, step: int, loss: float) -> None:
        """After every step, for the display."""
        pairs = self._batches.at(self._course.windows, step - 1)
        num_tokens = sum(example.num_tokens for _, example in pairs)
        self.progress.step(step, loss, num_tokens, self._course.share_at(step - 1))

    def _evaluate(self, step: int, weights: dict[str, Any], model: Any, questions: list[int]) -> tuple[Score, str]:
        """What the weights in training score on these control questions, and their digest.

        Where the whole set is answered later, it is by other answers: what looked short by luck has to be so again.
        """
        from stages.training.snapshot import Snapshot, write_model

        params = self._params
        folder = served(self._work, step)
        write_model(weights, self._inputs.model_path, params.model.dtype, folder)
        control, number = part(self._inputs.control, questions), params.ratio.control_samples
        first = number if is_screened(params, self._inputs.control) else 0
        with proven(self._server, Snapshot(weights, folder, model)) as (engine, digest):
            answers = answer(control, engine, folder, number, params.seed, f"control {folder.name}", first)
        return score(answers), digest

    def _realised(self, step: int) -> dict[str, float]:
        """The shares that the window that ended at `step` really had."""
        first = step - self._params.train.update_every
        batches = [self._batches.at(self._course.windows, past) for past in range(first, step)]
        example_share, token_share = realised_shares(batches)
        return {"example_share": example_share, "token_share": token_share}
