"""The closed loop inside the trainer: when a checkpoint is saved, when the control set is asked, what stops training.

Imported inside functions only. The decision is made once, by the first process, and handed to the others; which step a stop
or a broken loss falls on is agreed by all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.training.course import Course
from stages.training.launch import AllFailed
from stages.training.snapshot import gather
from stages.training.trainer import WAIT_SECONDS, MixtureTrainer

Decide = Callable[[int, dict[str, Any], Any, list[float]], float]  # step, weights, model, losses of the window -> share
Watch = Callable[[int, float], None]  # step, loss


class Trained(Exception):
    """Nothing is left to train: the run was killed after its last checkpoint."""


class ControlLoop(TrainerCallback):
    """`decide` and `watch` are of the first process, None elsewhere; `stop_requested` is asked after every step."""

    def __init__(
        self,
        trainer: MixtureTrainer,
        course: Course,
        update_every: int,
        dtype: str,
        decide: Decide | None,
        watch: Watch | None,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._trainer, self._course, self._update_every, self._dtype = trainer, course, update_every, dtype
        self._decide, self._watch, self._stop_requested = decide, watch, stop_requested
        self._group = _waiting_group()
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self._course.shares = self._from_first(self._course.shares)
        if self._course.undecided(state.global_step):  # killed between a checkpoint and its control evaluation
            self._next_share(state)
        if state.global_step >= args.max_steps:
            raise Trained  # the trainer would do a step before it asked whether to stop
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self.stopped = self._any(self._stop_requested())
        control.should_save = self.stopped or state.global_step % self._update_every == 0
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """After each step and before its checkpoint: a step that went wrong leaves none."""
        if logs is not None and "loss" in logs:
            for name in ("loss", "grad_norm"):
                if not math.isfinite(logs.get(name, 0.0)):
                    raise AllFailed(self._trainer.broken(state.global_step, name.replace("_", " ")))
            if self._watch is not None:
                self._watch(state.global_step, logs["loss"])
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.stopped:
            control.should_training_stop = True
        elif self._course.undecided(state.global_step):
            self._next_share(state)
        return control

    def _next_share(self, state: TrainerState) -> None:
        weights = gather(self._trainer, self._dtype)
        share = None
        if self._decide is not None:
            assert weights is not None
            whole = self._trainer.model if self._trainer.args.world_size == 1 else None
            share = self._decide(state.global_step, weights, whole, self._losses(state))
        self._course.shares.append(self._from_first(share))

    def _losses(self, state: TrainerState) -> list[float]:
        """Of the window that ends here, in nats per response token; the checkpoints carry them."""
        first = state.global_step - self._update_every
        return [entry["loss"] for entry in state.log_history if "loss" in entry and entry["step"] > first]

    def _from_first(self, value: Any) -> Any:
        if self._group is None:
            return value
        boxed = [value]
        dist.broadcast_object_list(boxed, src=0, group=self._group)
        return boxed[0]

    def _any(self, flag: bool) -> bool:
        if self._group is None:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flags.item())


def _waiting_group() -> Any:
    """All processes, over gloo: who waits in NCCL for an hour of control evaluation keeps a GPU busy. None for one."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=WAIT_SECONDS))
