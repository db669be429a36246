"""What a model can hold, before it is loaded: the longest context, and the memory of weights and KV cache.

Reads config.json and the headers of the safetensors files; writes nothing. Bytes = weights + 2 (keys and values) x layers x
KV heads x head size x bytes per number x tokens; what activations take comes on top and is left to the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages._errors import UserError
from stages._param_blocks import VllmParams
from stages.data.model_folder import num_parameters, read_config
from stages.engines.base import DecodeSpec, Request

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}
GIB = float(1 << 30)


def context_length(path: Path) -> int | None:
    """Tokens of prompt and answer that the model was made for; None if its config does not say."""
    length = read_config(path).get("max_position_embeddings")
    return None if length is None else int(length)


def check_context(path: Path, requests: Sequence[Request], spec: DecodeSpec) -> None:
    """UserError if the longest prompt and answer exceed the model's context: beyond it answers are noise."""
    limit = context_length(path)
    longest = max((len(request.prompt_ids) for request in requests), default=0)
    if limit is not None and longest + spec.max_tokens > limit:
        raise UserError(
            f"The model in {path} has a context of {limit} tokens, but the longest prompt ({longest} tokens) and "
            f"decode.max_tokens = {spec.max_tokens} exceed it; lower decode.max_tokens to {max(limit - longest, 1)} or less."
        )


def kv_bytes_per_token(path: Path, dtype: str) -> int:
    """Keys and values of one token in every layer, in bytes."""
    config = read_config(path)
    heads = int(config["num_attention_heads"])
    head_size = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    return 2 * int(config["num_hidden_layers"]) * kv_heads * head_size * NUMBER_BYTES[dtype]


def weight_bytes(path: Path, dtype: str) -> int:
    """All weights in the data type that they are served in, in bytes."""
    return num_parameters(path) * NUMBER_BYTES[dtype]


def check_memory(path: Path, dtype: str, device: str, settings: VllmParams, max_tokens: int) -> None:
    """UserError if weights and one longest answer cannot fit; says how much is needed and what lowers it."""
    num_tokens = settings.max_prompt_tokens + max_tokens
    one_answer = kv_bytes_per_token(path, dtype) * num_tokens
    if settings.kv_cache_gb is not None and settings.kv_cache_gb * GIB < one_answer:
        raise UserError(
            f"One answer of up to {num_tokens} tokens needs {one_answer / GIB:.3g} GiB of KV cache, more than "
            f"engine.vllm.kv_cache_gb = {settings.kv_cache_gb:g}; raise it, or lower decode.max_tokens or "
            "engine.vllm.max_prompt_tokens."
        )
    cache = one_answer if settings.kv_cache_gb is None else settings.kv_cache_gb * GIB
    weights = weight_bytes(path, dtype)
    needed = (weights + cache) / settings.tensor_parallel_size
    available, limit = _available(device, settings)
    if needed > available:
        raise UserError(
            f"The model in {path} needs {needed / GIB:.3g} GiB {'of memory' if device == 'cpu' else 'per GPU'} "
            f"({weights / GIB:.3g} GiB of weights, {cache / GIB:.3g} GiB of KV cache, over "
            f"{settings.tensor_parallel_size} device{'s' if settings.tensor_parallel_size > 1 else ''}), but "
            f"{available / GIB:.3g} GiB {limit}; lower engine.vllm.kv_cache_gb, decode.max_tokens or engine.processes, "
            "raise engine.vllm.tensor_parallel_size, or set model.dtype to bfloat16."
        )


def _available(device: str, settings: VllmParams) -> tuple[float, str]:
    """Bytes that one device may give, and where that limit comes from."""
    if device == "cpu":
        return free_memory(), "are free"
    import torch

    if torch.cuda.device_count() < settings.tensor_parallel_size:
        raise UserError(
            f"engine.vllm.tensor_parallel_size = {settings.tensor_parallel_size}, but this process sees "
            f"{torch.cuda.device_count()} GPUs; lower it or engine.processes."
        )
    total = torch.cuda.get_device_properties(0).total_memory
    share = settings.gpu_memory_utilization
    return total * share, f"are what engine.vllm.gpu_memory_utilization = {share:g} allows on this GPU"


def free_memory() -> float:
    """Bytes that the kernel can give to a new process without swapping (Linux)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return float(amount.split()[0]) * 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")
