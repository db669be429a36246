"""`tldr run STAGE`: one stage of dvc.yaml, in this process or in a container as container.engine says.

`tldr run evaluate --task NAME` evaluates a model beside the pipeline, see stages/cli/_evaluate.py.

dvc.yaml calls `python -m stages run STAGE`, and a container does so again inside.

Reads params.yaml and what the stage reads; writes what the stage writes and .tldr/last_exit.json.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import click

from stages._errors import ContainerExit, Interrupted, UserError
from stages._params import Params, load_params
from stages._provenance import current_image
from stages._signals import handled
from stages.cli._project import (
    INSIDE,
    RUN_ID,
    STAGES,
    StageRecord,
    check_stage,
    inside_folder,
    project_root,
    read_record,
)

# Set before the libraries are imported. Without HF_HUB_OFFLINE a local model folder still waits for the network.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
SHARDED = ("sample", "evaluate")  # stages whose answers do not depend on each other
KILLED = 137
KILLED_ADVICE = (
    "A process in the container was killed (exit code 137), most likely for memory; raise container.memory_gb, or lower "
    "engine.batch_size or train.micro_batch_size, and run again: finished answers and steps are kept."
)


@click.command("run")
@click.argument("stage")
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="With `evaluate`: a task or the path of a YAML file."
)
@click.option("--model", metavar="PATH", help="With --task: the model folder, model.path if left out.")
@click.option("--json", "as_json", is_flag=True, help="With --task: print JSON.")
@click.option("--shard", metavar="I/N", help="Draw only share I (from 0) of N of the answers.")
def command(stage: str, tasks: tuple[str, ...], model: str | None, as_json: bool, shard: str | None) -> None:
    """Run one stage as dvc.yaml does: here, or in its container.

    STAGE is sample, label-by-length, ratio-schedule, train, evaluate@base or evaluate@candidate. Its outputs are not
    recorded in dvc.lock: use `tldr repro STAGE` for that.

    `tldr run evaluate --task NAME` is no stage: it evaluates a model on other tasks and prints the result. NAME is a task
    of tasks/, a YAML file, or any task of lm-eval that generates text.

    `tldr run sample --shard 0/4` (also evaluate@base, evaluate@candidate) draws a quarter of the stage's answers and writes
    no outputs: a job for each of several GPUs or machines that share the checkout's disk. `tldr repro` takes the answers
    over afterwards and draws what is missing. See docs/cluster.md.
    """
    if tasks and stage != "evaluate":
        raise click.UsageError("--task goes with `tldr run evaluate`; a stage evaluates what evaluate.tasks lists.")
    if not tasks and (model is not None or as_json):
        raise click.UsageError("--model and --json go with `tldr run evaluate --task NAME`.")
    if tasks and shard is not None:
        raise click.UsageError("--shard goes with a stage, not with --task.")
    if tasks:
        run_tasks(tasks, model, as_json=as_json)
        return
    check_stage(stage, groups=False)
    root = project_root()
    if shard is not None:
        run_shard(root, stage, shard)
        return
    record = contextlib.nullcontext() if helps(stage, os.environ) else StageRecord(root, stage)
    with record, stopped_by_sigterm(), contextlib.chdir(root):
        params = load_params(root)
        if check_place(root, params):
            run_in_container(root, stage, params)
        else:
            run_stage(root, stage, params)


def helps(stage: str, environment: Mapping[str, str]) -> bool:
    """Whether this is a further machine of a training: the records on the shared disk are those of machine 0, and `tldr
    repro` there sends a stop to the process that they name and takes the exit code from them."""
    return stage == "train" and RUN_ID not in environment and environment.get("MACHINE_RANK", "0") not in ("", "0")


def run_tasks(names: tuple[str, ...], model: str | None, *, as_json: bool) -> None:
    """The tasks `names` beside the pipeline, on this machine; a `model` that is given is relative to where one is."""
    from stages.cli._evaluate import evaluate_tasks

    root = project_root()
    model = None if model is None else str(Path(model).resolve())
    with stopped_by_sigterm(), contextlib.chdir(root):
        params = load_params(root)
        os.environ.update(ENVIRONMENT)
        if params.container.engine == "host":
            check_gpu(root, "evaluate", params if model is None else with_model(params, model))
        evaluate_tasks(root, params, names, model, as_json=as_json)


def with_model(params: Params, path: str) -> Params:
    """`params` with the model folder `path`."""
    return params.model_copy(update={"model": params.model.model_copy(update={"path": path})})


def run_shard(root: Path, stage: str, text: str) -> None:
    """The shard `text` ("0/4") of a stage whose answers do not depend on each other, in this process."""
    from stages.engines.shards import Shard

    module, _, item = stage.partition("@")
    if module not in SHARDED:
        raise click.UsageError(f"--shard goes with {', '.join(SHARDED)} (evaluate@base, ...); {stage} is one piece.")
    try:
        shard = Shard.parse(text)
    except ValueError:
        raise click.UsageError(
            f"--shard is I/N with 0 <= I < N, such as 0/4 for the first of four; not {text!r}."
        ) from None
    with stopped_by_sigterm(), contextlib.chdir(root):
        params = load_params(root)
        if check_place(root, params):
            raise UserError(
                f"container.engine is {params.container.engine}, and a shard starts no container; start the job inside the "
                "image (apptainer exec, srun --container-image) with container.engine set to host."
            )
        prepare(root, stage, params)
        draw = importlib.import_module(STAGES[stage]).draw_shard
        draw(root, params, *([item] if item else []), shard)


def run_in_container(root: Path, stage: str, params: Params) -> None:
    """ContainerExit with the exit code of the stage, unless it is 0."""
    from containers.run import run_stage as run_contained

    record = inside_folder(root, stage) / "last_exit.json"
    record.unlink(missing_ok=True)
    code = run_contained(root, params, stage)
    message = read_record(record).get("message", "")
    shutil.rmtree(record.parent, ignore_errors=True)
    if code == KILLED:  # whoever was killed could not say so
        message = KILLED_ADVICE
        click.echo(f"Error: {message}", err=True)
    if code != 0:
        raise ContainerExit(code, message or f"The container ended with exit code {code}.")


def run_stage(root: Path, stage: str, params: Params) -> None:
    """Import the stage's module and call its main; errors pass through."""
    prepare(root, stage, params)
    main = importlib.import_module(STAGES[stage]).main
    _, _, item = stage.partition("@")
    if item:
        main(root, params, item)
    else:
        main(root, params)


def prepare(root: Path, stage: str, params: Params) -> None:
    """The environment of the libraries, a check of the GPU, and a line that says where the stage runs."""
    os.environ.update(ENVIRONMENT)
    check_gpu(root, stage, params)
    if INSIDE not in os.environ:
        image = current_image()
        where = f"container engine {params.container.engine}, device {params.container.device}"
        click.echo(f"{stage}: {where}{'' if image is None else ', inside the image ' + image['name']}", err=True)


def check_place(root: Path, params: Params) -> bool:
    """Whether the stage has to be started in a container; UserError if this is not where params.yaml says it runs."""
    engine, image, inside = params.container.engine, current_image(), os.environ.get(INSIDE)
    if inside is None:
        if engine != "host" and image is not None:
            raise UserError(
                f"This process is inside the image {image['name']} already; set container.engine to host, or run "
                f"outside it for {engine}."
            )
        return engine != "host"
    from containers.images import image_record, read_images

    if image is None or inside != engine:
        raise UserError(f"{INSIDE} is set, but this is no container that tldr started for {engine}; unset it.")
    locked = read_images(root).get(image["name"])
    if locked is None or image_record(locked) != image:
        raise UserError(
            f"The image {image['name']} that this process runs in is not the locked one; run "
            f"`tldr images build {image['name']}`."
        )
    return False


def check_gpu(root: Path, stage: str, params: Params) -> None:
    """UserError if the stage generates or trains on a GPU (all but label-by-length do), and none is there, or a small one."""
    if params.container.device == "cuda" and stage != "label-by-length":
        import torch

        if not torch.cuda.is_available():
            raise UserError("container.device = 'cuda', but torch finds no GPU; set it to cpu or install a CUDA torch.")
        from stages.plan.stages_of import require_memory

        require_memory(root, params, stage, torch.cuda.get_device_properties(0).total_memory / 2**30)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises Interrupted (exit code 75); a second SIGTERM kills."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Interrupted(
            "Stopped by SIGTERM; run the same command again to go on, finished answers and steps are kept."
        )

    with handled({signal.SIGTERM: stop}):
        yield
