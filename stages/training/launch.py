"""Several training processes through `accelerate launch`, and what became of them.

The processes (`stages.training.worker`) work in the stage's work folder, which machines have to share; there they leave why
they ended, since the launcher's own exit code does not say it. Writes params.json, stop and outcome-*.json there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from stages._errors import EXIT_BUG, EXIT_CTRL_C, Interrupted, StageFailed, UserError
from stages._io import read_json, write_json, write_text
from stages._params import Params
from stages._signals import handled

CONFIGS = Path(__file__).resolve().parent / "accelerate"
CPU_ENVIRONMENT = {
    "ACCELERATE_TORCH_DEVICE": "cpu",  # else "cpu:0", which torch cannot load an optimiser state to
    "DS_ACCELERATOR": "cpu",
}
PARAMS, STOP = "params.json", "stop"
STAGE_PID = "TLDR_STAGE_PID"
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
GRACE_SECONDS = 60.0
DEFAULT_PORT = "29500"  # torchrun's


class AllStopped(Interrupted):
    """Raised by every process after the same step: none waits for another, so the launcher has nobody to kill."""


class AllFailed(StageFailed):
    """The same for a failure."""


def machine_rank(params: Params, environment: Mapping[str, str]) -> int:
    """Which of `train.launch.num_machines` this is, from MACHINE_RANK; UserError if that or MASTER_ADDR does not say."""
    num_machines = params.train.launch.num_machines
    rank = environment.get("MACHINE_RANK", "")
    if num_machines == 1:
        if rank in ("", "0"):
            return 0
        raise UserError(
            f"MACHINE_RANK is {rank}, but train.launch.num_machines is 1; set it to the number of machines, or unset "
            "MACHINE_RANK."
        )
    if not rank.isdigit() or int(rank) >= num_machines or not environment.get("MASTER_ADDR"):
        raise UserError(
            f"train.launch.num_machines is {num_machines}: set MACHINE_RANK (0 to {num_machines - 1}) and MASTER_ADDR (the "
            "address of machine 0) on each, and run `tldr run train` on all of them."
        )
    return int(rank)


def check_launch(params: Params) -> None:
    """UserError where the launch that params.yaml asks for cannot start here."""
    launch = params.train.launch
    if launch.kind == "zero3":
        import importlib.util

        if importlib.util.find_spec("deepspeed") is None:
            raise UserError(
                "train.launch.kind is zero3, but deepspeed is not installed here; choose fsdp2, or run "
                "`pip install --no-build-isolation -e '.[stages,deepspeed]'`."
            )
    if params.container.device == "cuda" and launch.kind != "single":
        import torch

        if torch.cuda.device_count() < launch.num_processes:
            raise UserError(
                f"train.launch.num_processes is {launch.num_processes}, but this machine has {torch.cuda.device_count()} "
                "GPUs; lower it."
            )


def command(params: Params, root: Path, work: Path, environment: Mapping[str, str]) -> list[str]:
    """The command line of this machine."""
    launch = params.train.launch
    line = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{launch.kind}.yaml")]
    line += ["--num_processes", str(launch.world_size), "--num_machines", str(launch.num_machines)]
    line += ["--mixed_precision", "bf16" if params.model.dtype == "bfloat16" else "no"]
    line += ["--num_cpu_threads_per_process", str(params.engine.threads)]
    if launch.num_machines > 1:
        line += [
            "--machine_rank",
            str(machine_rank(params, environment)),
            "--main_process_ip",
            environment["MASTER_ADDR"],
        ]
        line += ["--main_process_port", environment.get("MASTER_PORT", DEFAULT_PORT)]
    else:
        line += ["--main_process_port", "0"]  # any free one
    return [*line, "-m", "stages.training.worker", str(root), str(work)]


def run_launch(params: Params, root: Path, work: Path) -> None:
    """Returns when all processes ended well; else the error of the first of them, or StageFailed if one was killed."""
    if machine_rank(params, os.environ) == 0:  # the others' processes start when this machine's do
        _clear(work)
        write_json(work / PARAMS, params.model_dump(mode="json"))

    def stop(number: int, frame: FrameType | None) -> None:
        write_text(work / STOP, "")  # seen by the first process, which ends all of them after a whole step

    # A session of its own: a signal to our group would have the launcher kill processes that are saving.
    process = subprocess.Popen(
        command(params, root, work, os.environ),
        cwd=root,
        env={
            **os.environ,
            STAGE_PID: str(os.getpid()),
            **(CPU_ENVIRONMENT if params.container.device == "cpu" else {}),
        },
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        with handled({signal.SIGTERM: stop}):
            code = process.wait()
    except BaseException:
        _end(process)
        raise
    if code != 0 or _outcomes(work):
        raise outcome(work, code)


def _clear(work: Path) -> None:
    for path in [*work.glob("outcome-*.json"), work / STOP]:
        path.unlink(missing_ok=True)


def leave_outcome(work: Path, rank: int, code: int, message: str) -> None:
    write_json(work / f"outcome-{rank:05d}.json", {"code": code, "message": message})


def outcome(work: Path, code: int) -> BaseException:
    """The error to raise for a launch that ended with `code`."""
    found = _outcomes(work)
    if (work / STOP).exists() and all(each["code"] == Interrupted.exit_code for each in found):
        message = found[0]["message"] if found else "Stopped by SIGTERM; run the same command again to go on."
        return Interrupted(message)
    for each in found:
        if each["code"] == EXIT_CTRL_C:
            return KeyboardInterrupt()
        for kind in (UserError, StageFailed, Interrupted):
            if each["code"] == kind.exit_code:
                return kind(each["message"])
        if each["code"] == EXIT_BUG:
            return AssertionError(f"A training process failed: {each['message']}")
    return StageFailed(
        f"accelerate ended with code {code} and no training process left a reason: its output is above. If one was killed "
        "(exit code -9), lower train.micro_batch_size; running again goes on from the last checkpoint."
    )


def _outcomes(work: Path) -> list[dict[str, Any]]:
    """What the processes left, the first one's first."""
    return [read_json(path, "tldr run train") for path in sorted(work.glob("outcome-*.json"))]


def end_with_parent() -> None:
    """The kernel kills this process as soon as its parent is gone: the folder's lock is free then, and another run may
    take it. Nothing is lost but the steps since the last checkpoint."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went in between
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_launcher() -> None:
    """The same for a training process, which gets here seconds after it was started: if the stage is no ancestor of it any
    more, its launcher was killed meanwhile, and it would wait for the others for half an hour."""
    import psutil

    end_with_parent()
    stage = os.environ.get(STAGE_PID)
    if stage is not None and int(stage) not in {process.pid for process in psutil.Process().parents()}:
        os.kill(os.getpid(), signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
