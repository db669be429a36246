"""What vLLM serves, as hashes under the checkpoint's names: `served_hashes(model)` runs inside a vLLM worker.

vLLM fuses q, k and v and gate and up, pads the vocabulary, shards layers over GPUs and, on a CPU, packs weights for its
kernel and leaves an empty tensor behind. Every tensor is read from where answers are computed: a packed one through its
kernel, with the identity as input (w * 1 + 0 is exact, but for numbers under 1.2e-38, which some kernels take as 0).
Reads and writes no file; source of the layer attributes: vLLM 0.31, vllm/model_executor/layers/linear.py and
vocab_parallel_embedding.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stages._errors import StageFailed
from stages.engines.weights import HEAD, tensor_hash

KERNEL_ROWS = 512  # rows of the identity per call of a packed kernel: bounds the memory of reading a wide layer


def served_hashes(model: Any) -> dict[str, str]:
    """Hash of every whole tensor by its name in the checkpoint; the output layer is `lm_head.weight`, tied or not.

    `model` is the module in a vLLM worker. With several workers (tensor parallel) each must call this, at the same time,
    and the answers of all must be equal: what every GPU holds for itself, such as norms, is hashed on each. StageFailed
    for layers whose weights are not plain (quantised, mixture of experts, several pipeline stages).
    """
    return {name: tensor_hash(tensor) for name, tensor in served_tensors(model)}


def served_tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, whole tensor) as `served_hashes` hashes them; sharded ones are gathered on the CPU, one at a time."""
    packed = getattr(model, "packed_modules_mapping", {})
    for module_name, layer in model.named_modules(remove_duplicate=False):
        own = {name: value for name, value in layer._parameters.items() if value is not None}
        if not own:
            continue
        _require_plain(module_name, layer)
        parent, _, leaf = module_name.rpartition(".")
        prefix = f"{parent}." if parent else ""
        for name, value in own.items():
            full_name = f"{module_name}.{name}"
            local = _kernel_weight(layer) if name == "weight" and _packed(full_name, value, layer) else value
            parts = packed.get(leaf, [leaf])
            for part, tensor in zip(parts, _whole(layer, name, local.detach(), len(parts)), strict=True):
                yield f"{prefix}{part}.{name}", tensor


def after_reload(model: Any) -> None:
    """Have `model` compute with the weights that vLLM has just reloaded as it would had it started with them."""
    _refresh_tied_head(model)
    _round_biases(model)


def _refresh_tied_head(model: Any) -> None:
    """Have a tied output layer compute with the embedding as it is now.

    On a CPU vLLM packs a tied output layer once, from the embedding it started with; a checkpoint without
    `lm_head.weight` leaves that copy as it was, so that the model would answer with the former output layer.
    """
    head: Any = getattr(model, "lm_head", None)
    embedding: Any = getattr(getattr(model, "model", None), "embed_tokens", None)
    if hasattr(head, "cpu_linear") and embedding is not None and _same_storage(head.weight, embedding.weight):
        head.quant_method.process_weights_after_loading(head)


def _round_biases(model: Any) -> None:
    """Round biases to the model's data type, as the start does.

    Kernels of CPUs with AMX keep a bias in float32. vLLM widens it at its start, after it was rounded, but a reload copies
    the checkpoint's float32 bias into it as it is.
    """
    for layer in model.modules():
        bias = layer._parameters.get("bias")
        if bias is not None and hasattr(layer, "params_dtype"):
            bias.data.copy_(bias.data.to(layer.params_dtype))


def _same_storage(one: Any, other: Any) -> bool:
    return bool(one.data_ptr() == other.data_ptr() and one.shape == other.shape)


def _require_plain(name: str, layer: Any) -> None:
    method = type(getattr(layer, "quant_method", None)).__name__
    if method not in ("NoneType", "UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"):
        raise StageFailed(
            f"vLLM holds {name} as {method}, whose weights cannot be read back for the proof that the right weights "
            "answer; use a dense model without quantisation, or set engine.name to hf."
        )


def _packed(full_name: str, value: Any, layer: Any) -> bool:
    """Whether answers are computed with a packed copy of the weight instead of the weight: on a CPU all but the lookup
    of embeddings."""
    return hasattr(layer, "cpu_linear") and (value.numel() == 0 or full_name == HEAD)


def _kernel_weight(layer: Any) -> Any:
    """The weight [outputs, inputs] that the layer multiplies with on this worker, read through its kernel."""
    import torch

    inputs = layer.input_size_per_partition
    columns = []
    for start in range(0, inputs, KERNEL_ROWS):
        rows = torch.arange(start, min(start + KERNEL_ROWS, inputs))
        unit = torch.zeros(len(rows), inputs, dtype=layer.params_dtype)
        unit[torch.arange(len(rows)), rows] = 1.0
        columns.append(layer.quant_method.apply(layer, unit, None).T)
    return torch.cat(columns, dim=1)


def _whole(layer: Any, name: str, local: Any, num_parts: int) -> list[Any]:
    """The checkpoint's tensors that this worker's parameter `local` is a share of: `num_parts`, in the fused order."""
    from vllm.model_executor.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    if name == "bias" and hasattr(layer, "params_dtype"):
        local = _narrowed(local, layer.params_dtype)
    if isinstance(layer, VocabParallelEmbedding):
        return [_gathered(layer, local, 0)[: layer.org_vocab_size]]
    if isinstance(layer, ColumnParallelLinear):
        sizes = layer.output_partition_sizes if num_parts > 1 else [local.shape[0]]
        wholes = [_gathered(layer, part, 0) for part in local.split(sizes)]
        if isinstance(layer, QKVParallelLinear):
            wholes[1:] = [_one_copy(whole, layer) for whole in wholes[1:]]
        return wholes
    if isinstance(layer, RowParallelLinear) and name == "weight":
        return [_gathered(layer, local, 1)]
    return [local]  # every worker has all of it


def _narrowed(bias: Any, dtype: Any) -> Any:
    """The bias in the model's data type, in which some CPU kernels do not keep it; as it is if that would lose digits."""
    narrow = bias.to(dtype)
    return narrow if bool((narrow.to(bias.dtype) == bias).all()) else bias


def _gathered(layer: Any, local: Any, dim: int) -> Any:
    """The shares of all workers in order, joined along `dim`; in main memory, since GPUs have none to spare."""
    import torch
    from vllm.distributed import get_tp_group

    if getattr(layer, "tp_size", 1) == 1:
        return local
    own = local.contiguous().cpu()
    shares = [torch.empty_like(own) for _ in range(layer.tp_size)]
    # As bytes: the CPU's collectives know few data types.
    raw = [share.view(torch.uint8) for share in shares]
    torch.distributed.all_gather(raw, own.view(torch.uint8), group=get_tp_group().cpu_group)
    return torch.cat(shares, dim=dim)


def _one_copy(whole: Any, layer: Any) -> Any:
    """Keys or values without the copies that workers hold when there are more of them than key-value heads."""
    copies = layer.num_kv_head_replicas
    if copies == 1:
        return whole
    blocks = whole.view(layer.total_num_kv_heads, copies, -1, *whole.shape[1:])
    if not bool((blocks == blocks[:, :1]).all()):
        raise StageFailed(
            "vLLM's workers hold unequal copies of a key-value head; run the stage again, and report this."
        )
    return blocks[:, 0].reshape(-1, *whole.shape[1:])
