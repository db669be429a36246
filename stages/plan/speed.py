"""How long generation and training take on given GPUs, from stated shares of what the GPU's maker publishes.

Formulas are in docs/plan.md; nothing here was measured on a GPU. Decoding reads weights and cache once per step; training does
6 operations per number and token (8 with recomputation, 4 and 6 for LoRA), and those of attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages._params import Params
from stages.plan.memory import Need, bytes_of
from stages.plan.shapes import Shape

OF_BANDWIDTH = 0.6  # share of the memory's bandwidth that decoding reaches
OF_PEAK_DECODING = 0.5  # share of dense bfloat16 operations, where many answers share a step
OF_PEAK_TRAINING = 0.35  # MFU


@dataclass(frozen=True)
class Gpu:
    """Dense bfloat16 operations and bytes per second, GiB of memory."""

    name: str
    operations: float
    bandwidth: float
    gib: float


GPUS = {  # data sheets of the maker; the memory is what the driver shows
    "a100": Gpu("A100 80GB", 312e12, 2.0e12, 79.2),
    "h100": Gpu("H100 80GB", 989e12, 3.35e12, 79.6),
    "h200": Gpu("H200 141GB", 989e12, 4.8e12, 139.8),
    "l40s": Gpu("L40S 48GB", 362e12, 0.864e12, 44.7),
}


def decoding(shape: Shape, params: Params, gpu: Gpu, need: Need, mean_tokens: float) -> float:
    """Tokens per second of one engine on its GPUs; 0 where no answer fits."""
    per_engine = params.engine.vllm.tensor_parallel_size if params.engine.name == "vllm" else 1
    rows = min(params.engine.batch_size, need.answers)
    if rows == 0:
        return 0.0
    read = shape.num_parameters * bytes_of(params) + rows * mean_tokens / 2 * shape.cache_bytes(bytes_of(params))
    seconds = max(
        read / (gpu.bandwidth * per_engine * OF_BANDWIDTH),
        2 * shape.num_parameters * rows / (gpu.operations * per_engine * OF_PEAK_DECODING),
    )
    return rows / seconds


def training_seconds(shape: Shape, params: Params, gpu: Gpu, tokens: float, example_tokens: float) -> float:
    """Of all steps, on all GPUs of the launch together."""
    train = params.train
    linear = {"full": 6, "lora": 4}[train.method] + (2 if train.gradient_checkpointing else 0)
    attention = linear * shape.num_layers * shape.num_heads * shape.head_dim * example_tokens
    operations = tokens * (linear * shape.num_parameters + attention)
    return operations / (gpu.operations * OF_PEAK_TRAINING * train.launch.world_size)
