"""One process of a training run, from the last whole checkpoint to the end or to a stop: `train`, called by every process.

Reads and writes the work folder only. Alone, or one of the processes of `accelerate launch` (`stages.training.worker`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from stages._errors import Interrupted, StageFailed
from stages._io import AppendLog
from stages._params import Params
from stages._signals import handled
from stages.training.checkpoints import last_step, remove_torn
from stages.training.course import Course
from stages.training.examples import Batches
from stages.training.inputs import Inputs
from stages.training.launch import AllStopped
from stages.training.pilot import WINDOWS, Pilot, prune
from stages.training.progress import TrainingProgress
from stages.training.serving import open_server
from stages.training.steering import shares_so_far

LAUNCH_PREFIXES = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "DEEPSPEED_")
LAUNCH_NAMES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
MEMORY_SIGNS = ("out of memory", "can't allocate memory", "DefaultCPUAllocator")


class Stop:
    """Set by SIGTERM; training stops after the step that it falls in, with a checkpoint."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def train(params: Params, inputs: Inputs, work: Path) -> None:
    """Returns when every window is trained and decided; Interrupted (75) after a stop, which loses nothing."""
    train = params.train
    batches = Batches(inputs.examples, train.batch_size, params.seed, train.unit)
    course = Course(train.update_every, train.batch_size, shares_so_far(inputs.schedule, []))
    stop = Stop()
    with contextlib.ExitStack() as stack:
        step = last_step(work)
        pilot = None
        if _is_first():
            remove_torn(work, step)
            log = stack.enter_context(AppendLog(work / WINDOWS))
            prune(work, params, inputs, log.rows)  # killed in between
            course.shares = shares_so_far(inputs.schedule, log.rows)
            if step == train.max_steps and not course.undecided(step):
                return
            with outside_launch():  # before the trainer: it takes its memory first, and knows nothing of the launch
                server = stack.enter_context(open_server(params, inputs.model_path))
            progress = TrainingProgress(train.max_steps, step)
            if log.rows:
                last = log.rows[-1]
                progress.resume(last["accuracy"], last["mean_tokens"], last["next_short_share"])
            pilot = Pilot(params, inputs, work, log, server, batches, course, progress, _interruptible)
        prepare(params)
        stack.enter_context(handled({signal.SIGTERM: stop.request}))
        _train(params, inputs, work, batches, course, pilot, stop)
        _free_gpu()
        if pilot is not None and train.launch.kind == "single":  # else the stage does it, with all GPUs to itself
            pilot.confirm()


def _free_gpu() -> None:
    """Give back what the trainer held: an engine may start in its place."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _train(
    params: Params, inputs: Inputs, work: Path, batches: Batches, course: Course, pilot: Pilot | None, stop: Stop
) -> None:
    from transformers import PrinterCallback

    from stages.training.control_loop import ControlLoop, Trained
    from stages.training.trainer import MixtureTrainer

    step = last_step(work)
    with memory_named(params):
        trainer = MixtureTrainer(params, inputs.model_path, work, batches, course)
        trainer.remove_callback(PrinterCallback)
        loop = ControlLoop(
            trainer,
            course,
            params.train.update_every,
            params.model.dtype,
            None if pilot is None else pilot.decide,
            None if pilot is None else pilot.watch,
            lambda: stop.requested,
        )
        trainer.add_callback(loop)
        with contextlib.suppress(Trained), contextlib.nullcontext() if pilot is None else pilot.progress:
            trainer.train_from(step)
    if loop.stopped:
        raise AllStopped(
            f"Stopped by SIGTERM after step {trainer.state.global_step} of {params.train.max_steps}, which is saved; run the "
            "same command again to go on."
        )


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def prepare(params: Params) -> None:
    import torch

    torch.set_num_threads(params.engine.threads)
    torch.use_deterministic_algorithms(params.container.device == "cpu")
    # It costs a third of a step, and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted("Stopped by SIGTERM during a control evaluation; run the same command again to go on.")

    with handled({signal.SIGTERM: stop}):
        yield


@contextlib.contextmanager
def outside_launch() -> Iterator[None]:
    """Without the variables of `accelerate launch`: what is started within takes no part in its rendezvous."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name in LAUNCH_NAMES or name.startswith(LAUNCH_PREFIXES)
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def memory_named(params: Params) -> Iterator[None]:
    """StageFailed that says which parameter to lower where memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in MEMORY_SIGNS):
            raise
        raise StageFailed(_advice(params)) from error


def _advice(params: Params) -> str:
    train = params.train
    size = train.micro_batch_size
    lower: list[Any] = []
    if size > 1:
        lower.append(f"lower train.micro_batch_size (now {size})")
    if not train.gradient_checkpointing:
        lower.append("set train.gradient_checkpointing to true")
    lower.append(f"lower train.max_length (now {train.max_length})")
    return f"Training ran out of memory: {', or '.join(lower)}, and run again; the last checkpoint is kept."
