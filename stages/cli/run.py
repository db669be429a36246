"""`tldr run STAGE`: one stage of dvc.yaml in this process (dvc.yaml calls `python -m stages run STAGE`).

Reads params.yaml and what the stage reads; writes what the stage writes and .tldr/last_exit.json.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from stages._errors import Interrupted, UserError
from stages._params import Params, load_params
from stages.cli._project import STAGES, StageRecord, check_stage, project_root

# Set before the libraries are imported. Without HF_HUB_OFFLINE a local model folder still waits for the network.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


@click.command("run")
@click.argument("stage")
def command(stage: str) -> None:
    """Run one stage in this process, as dvc.yaml does.

    STAGE is sample, label-by-length, ratio-schedule, train, evaluate@base or evaluate@candidate. Its outputs are not
    recorded in dvc.lock: use `tldr repro STAGE` for that.
    """
    check_stage(stage, groups=False)
    root = project_root()
    with StageRecord(root, stage), stopped_by_sigterm(), contextlib.chdir(root):
        run_stage(root, stage, load_params(root))


def run_stage(root: Path, stage: str, params: Params) -> None:
    """Import the stage's module and call its main; errors pass through."""
    os.environ.update(ENVIRONMENT)
    check_container(params)
    click.echo(f"{stage}: container engine {params.container.engine}, device {params.container.device}", err=True)
    main = importlib.import_module(STAGES[stage]).main
    _, _, item = stage.partition("@")
    if item:
        main(root, params, item)
    else:
        main(root, params)


def check_container(params: Params) -> None:
    """UserError if the stage cannot run where container.engine and container.device say."""
    if params.container.engine != "host":
        raise UserError(
            f"container.engine = {params.container.engine!r} cannot be used yet; set it to host in params.yaml."
        )
    if params.container.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("container.device = 'cuda', but torch finds no GPU; set it to cpu or install a CUDA torch.")


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises Interrupted (exit code 75); a second SIGTERM kills."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Interrupted(
            "Stopped by SIGTERM; run the same command again to go on, finished answers and steps are kept."
        )

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
