"""The plan itself: every stage with what it needs. Reads what `stages.plan.workload` reads; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._params import Params
from stages.data.model_folder import read_config
from stages.data.sources import Sources
from stages.plan.memory import Need, advice, bytes_of, serving, training
from stages.plan.shapes import PUBLISHED, Shape, shape_of
from stages.plan.speed import Gpu, decoding, training_seconds
from stages.plan.workload import Workload, workload

CHECKPOINTS = 2  # of the trainer, with its optimiser, on disk at a time
SERVED = 2  # copies of the weights for the engine: of the last checkpoint, and while the next one is written
STATES_ON_DISK = 12  # bytes per trained number in a checkpoint: float32 weight and moments


@dataclass(frozen=True)
class StagePlan:
    """One stage. Hours are of all its GPUs together, None on a CPU; `advice` says what to change where it does not fit."""

    name: str
    gpus: int
    need: Need | None
    generated: float
    trained: float
    gpu_hours: float | None
    advice: str | None


@dataclass(frozen=True)
class Plan:
    """`control_share`: of the stage train, what answering the control set takes, and `steering_share` what of it moves the
    ratio, None on a CPU; sizes in GB (10^9 bytes)."""

    profile: str
    gpu: Gpu | None
    stages: list[StagePlan]
    load: Workload
    control_share: float | None
    steering_share: float | None
    downloads: dict[str, float]
    disk: float

    @property
    def fits(self) -> bool:
        return all(stage.advice is None for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        return sum(stage.gpu_hours or 0.0 for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        stages = [
            {**asdict(stage), "need": None if stage.need is None else asdict(stage.need) | {"total": stage.need.total}}
            for stage in self.stages
        ]
        totals = {"gpu_hours": self.gpu_hours if self.gpu else None, "fits": self.fits}
        return asdict(self) | {"stages": stages} | totals


def make_plan(root: Path, params: Params, sources: Sources | None, gpu: Gpu | None) -> Plan:
    """`gpu` None plans for a CPU: tokens, downloads and disk only."""
    base = model_shape(root, params, "model")
    short = model_shape(root, params, "short_model") if params.ratio.short_bound.source == "model" else base
    load = workload(root, params, sources)
    serve = {name: _engine(shape, params, gpu, load) for name, shape in (("base", base), ("short", short))}
    rows, shares = [], {}
    for name, tokens in load.generated.items():
        need, speed = serve["short" if name == "ratio-schedule" else "base"]
        hours = None if gpu is None else tokens / speed / 3600 * _engine_gpus(params) if speed else 0.0
        shares[name] = hours
        if name == "train":
            rows.append(_train(base, params, gpu, load, hours, need))
            continue
        used = tokens > 0 and gpu is not None
        said = advice(need, params, gpu.gib) if used and gpu is not None and need is not None else None
        gpus = _engine_gpus(params) * params.engine.processes if used else 0
        rows.append(StagePlan(name, gpus, need if used else None, tokens, 0.0, hours, said))
    rows.insert(1, StagePlan("label-by-length", 0, None, 0.0, 0.0, None if gpu is None else 0.0, None))
    train = next(row for row in rows if row.name == "train")
    share = None if not train.gpu_hours else _control_share(params, shares["train"] or 0.0, train.gpu_hours)
    steering = None if share is None else share * load.steering / load.generated["train"]
    sizes = downloads(root, params, base, short)
    disk = _disk(base, params, load, sum(sizes.values()))
    return Plan(params.profile, gpu, rows, load, share, steering, sizes, disk)


def _engine_gpus(params: Params) -> int:
    return params.engine.vllm.tensor_parallel_size if params.engine.name == "vllm" else 1


def _engine(shape: Shape, params: Params, gpu: Gpu | None, load: Workload) -> tuple[Need | None, float]:
    if gpu is None:
        return None, 0.0
    mean = max(load.control.mean_tokens, 1.0)
    need = serving(shape, params, gpu.gib, mean)
    return need, decoding(shape, params, gpu, need, mean)


def _train(
    shape: Shape, params: Params, gpu: Gpu | None, load: Workload, control: float | None, engine: Need | None
) -> StagePlan:
    """GPU-hours hold the trainer's GPUs also while the control set is answered, and the engine's."""
    tokens, world = load.trained, params.train.launch.world_size
    if gpu is None:
        return StagePlan("train", 0, None, load.generated["train"], tokens, None, None)
    gpus = max(world, _engine_gpus(params) * params.engine.processes)
    need = training(shape, params, gpu.gib, load.control.mean_tokens)
    seconds = training_seconds(shape, params, gpu, tokens, load.example_tokens)
    answering = (control or 0.0) / (_engine_gpus(params) * params.engine.processes)  # hours of the clock
    said = advice(need, params, gpu.gib) or (None if engine is None else advice(engine, params, gpu.gib))
    return StagePlan("train", gpus, need, load.generated["train"], tokens, gpus * (seconds / 3600 + answering), said)


def _control_share(params: Params, control: float, hours: float) -> float:
    engines = _engine_gpus(params) * params.engine.processes
    gpus = max(params.train.launch.world_size, engines)
    return control / engines * gpus / hours


def model_shape(root: Path, params: Params, which: str) -> Shape:
    """Of `model` or `short_model`: from its folder if it is there, else as its repository publishes it, else UserError."""
    path = params.model.path if which == "model" else str(params.ratio.short_bound.path)
    if (root / path / "config.json").is_file():
        return shape_of(read_config(root / path), f"{path}/config.json")
    pinned = params.fetch.model if which == "model" else params.fetch.short_model
    if pinned is not None and pinned.repo in PUBLISHED:
        return PUBLISHED[pinned.repo]
    raise UserError(
        f"The model folder {path} does not exist, and the sizes of its model are not known without it; run `tldr fetch`, or "
        "copy its config.json there."
    )


def downloads(root: Path, params: Params, base: Shape, short: Shape) -> dict[str, float]:
    """GB to fetch by path: models are published in bfloat16; data files are less than 0.01."""
    wanted: list[tuple[Any, str | None, Shape]] = [
        (params.fetch.model, params.model.path, base),
        (params.fetch.short_model, params.ratio.short_bound.path, short),
    ]
    return {
        str(path): shape.num_parameters * 2 / 1e9
        for pinned, path, shape in wanted
        if pinned is not None and path is not None and not (root / path).exists()
    }


def _disk(shape: Shape, params: Params, load: Workload, fetched: float) -> float:
    """GB: downloads, checkpoints, served weights, the model that is published and its copy in DVC's cache, answers."""
    train, number = params.train, shape.num_parameters
    trained = number if train.method == "full" else shape.adapter_parameters(train.lora.rank)
    kept = params.select.candidates if load.whole_control.number else 1  # checkpoints that may still be chosen
    weights = number * bytes_of(params) * (SERVED + kept + 2)
    answers = 2 * 8 * sum(load.generated.values())  # ids and text of an answer, twice
    return fetched + (CHECKPOINTS * trained * STATES_ON_DISK + weights + answers) / 1e9


def require_memory(root: Path, params: Params, stage: str, gib: float) -> None:
    """UserError, naming the parameter to change, if the GPU memory of `gib` cannot hold what `stage` needs.

    The length of answers is taken for half of decode.max_tokens; it decides how many fit at a time, not whether one does.
    """
    if stage == "label-by-length" or (stage == "ratio-schedule" and params.ratio.short_bound.source == "self"):
        return
    shape = model_shape(root, params, "short_model" if stage == "ratio-schedule" else "model")
    mean = params.decode.max_tokens / 2
    needs = [serving(shape, params, gib, mean)]
    if stage == "train":
        needs.insert(0, training(shape, params, gib, mean))
    for need in needs:
        said = advice(need, params, gib)
        if said is not None:
            raise UserError(
                f"{stage} needs about {need.total:.0f} GiB of GPU memory and this GPU has {gib:.0f}: {said} (`tldr plan` shows "
                "what takes it)."
            )


def named_gib(need: Need) -> Mapping[str, float]:
    return {"weights": need.weights, "optimiser": need.states, "activations": need.activations, "cache": need.cache,
            "engine": need.engine, "reserve": need.reserve}  # fmt: skip
