"""GPU memory that a stage needs, per GPU and in GiB, and which parameter to change where it does not fit.

Formulas are in docs/plan.md. They are estimates that err on the large side, checked against no GPU yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages._params import Params
from stages.plan.shapes import Shape

GIB = 2**30
SERVING_RESERVE = 2.0  # GiB: CUDA context, activations of a step, CUDA graphs
TRAINING_RESERVE = 3.0  # GiB: CUDA context, NCCL, chunks of logits, fragmentation
STATE_BYTES = 16  # per trained number: float32 weight and gradient, two float32 moments of AdamW
SHARDED = ("fsdp2", "zero3")


@dataclass(frozen=True)
class Need:
    """Memory of one GPU in GiB, by what takes it. `engine` is what the engine that answers the control set holds meanwhile;
    `answers` how many answers of mean length it has room for at a time, 0 for less than one of the longest."""

    weights: float = 0.0
    states: float = 0.0
    activations: float = 0.0
    cache: float = 0.0
    engine: float = 0.0
    reserve: float = 0.0
    answers: int = 0

    @property
    def total(self) -> float:
        return self.weights + self.states + self.activations + self.cache + self.engine + self.reserve


def bytes_of(params: Params) -> int:
    return 2 if params.model.dtype == "bfloat16" else 4


def serving(shape: Shape, params: Params, gpu_gib: float, mean_tokens: float) -> Need:
    """An engine on `gpu_gib` of GPU memory. vLLM takes its share whole; what weights and reserve leave is cache."""
    size, engine = bytes_of(params), params.engine
    per_gpu = engine.vllm.tensor_parallel_size if engine.name == "vllm" else 1
    weights = shape.num_parameters * size / per_gpu / GIB
    per_token = shape.cache_bytes(size) / per_gpu / GIB
    longest = (engine.vllm.max_prompt_tokens + params.decode.max_tokens) * per_token
    if engine.name != "vllm":
        rows = engine.batch_size  # every row's cache grows to the longest answer of its batch
        return Need(weights, cache=rows * longest, reserve=SERVING_RESERVE, answers=rows)
    given = engine.vllm.kv_cache_gb
    cache = engine.vllm.gpu_memory_utilization * gpu_gib - weights - SERVING_RESERVE if given is None else given
    answers = 0 if cache < longest else max(1, int(cache / (mean_tokens * per_token)))
    return Need(weights, cache=max(cache, longest), reserve=SERVING_RESERVE, answers=answers)


def training(shape: Shape, params: Params, gpu_gib: float, mean_tokens: float) -> Need:
    """A process of the trainer on its GPU, with micro-batches of the longest examples, beside the engine."""
    train, launch = params.train, params.train.launch
    shards = launch.world_size if launch.kind in SHARDED else 1
    number, trained = shape.num_parameters, shape.num_parameters
    weights = 0.0
    if train.method == "lora":
        trained = shape.adapter_parameters(train.lora.rank)
        weights += number * bytes_of(params) / shards
    if bytes_of(params) == 2:  # what computes: copies of two gathered layers, or of all weights
        weights += 2 * 2 * shape.layer_parameters if shards > 1 else (2 * number if train.method == "full" else 0)
    tokens = train.micro_batch_size * train.max_length
    whole_layer = 18 * shape.hidden_size + 6 * shape.intermediate_size
    kept = (2 if shards > 1 else 4) * shape.hidden_size if train.gradient_checkpointing else whole_layer
    activations = tokens * (shape.num_layers * kept + whole_layer)
    return Need(
        weights / GIB,
        trained * STATE_BYTES / shards / GIB,
        activations / GIB,
        engine=_beside(shape, params, gpu_gib, mean_tokens),
        reserve=TRAINING_RESERVE,
    )


def _beside(shape: Shape, params: Params, gpu_gib: float, mean_tokens: float) -> float:
    """GiB that the engine which answers the control set holds on a GPU of the trainer."""
    if params.train.control_engine == "live":
        return 0.0
    if params.engine.name == "vllm" and params.engine.vllm.kv_cache_gb is None:
        return params.engine.vllm.gpu_memory_utilization * gpu_gib
    return serving(shape, params, gpu_gib, mean_tokens).total


def advice(need: Need, params: Params, gpu_gib: float) -> str | None:
    """What to change, as the end of a sentence; None if it fits into `gpu_gib`."""
    vllm = params.engine.name == "vllm"
    if need.states == 0.0:  # an engine
        if vllm and params.engine.vllm.kv_cache_gb is None:
            taken = params.engine.vllm.gpu_memory_utilization * gpu_gib
            if need.answers:
                return None
            if need.total <= gpu_gib:
                return f"raise engine.vllm.gpu_memory_utilization to at least {need.total / gpu_gib + 0.005:.2f}"
            return (
                f"raise engine.vllm.tensor_parallel_size, or lower decode.max_tokens ({taken:.0f} GiB are given, "
                f"{need.total:.0f} needed)"
            )
        if need.total <= gpu_gib:
            return None
        return "raise engine.vllm.tensor_parallel_size" if vllm else "lower engine.batch_size"
    if need.total <= gpu_gib:
        return None
    if need.total - need.engine <= gpu_gib and vllm:
        room = math.floor(100 * (gpu_gib - (need.total - need.engine)) / gpu_gib) / 100
        return f"lower engine.vllm.gpu_memory_utilization to {room:.2f}"
    if need.total - need.activations <= gpu_gib:
        if not params.train.gradient_checkpointing:
            return "set train.gradient_checkpointing to true, or lower train.micro_batch_size"
        return "lower train.micro_batch_size or train.max_length"
    if params.train.launch.kind not in SHARDED:
        return "set train.launch.kind to fsdp2 and raise train.launch.num_processes, or set train.method to lora"
    return "raise train.launch.num_processes, or set train.method to lora"
