"""The weights in training as they are served: one whole state dict in the served data type, adapters merged.

Imported inside functions only. `gather` is called by every process, since each may hold a part; the first gets the weights.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoConfig

from stages._errors import StageFailed
from stages._io import whole_folder
from stages.engines.weights import EMBEDDING, HEAD, checkpoint_hashes, tensor_hash, weights_digest

PREFIX, LAYER, ADAPTERS = "base_model.model.", ".base_layer", (".lora_A.default.weight", ".lora_B.default.weight")


@dataclass(frozen=True)
class Snapshot:
    """`weights`: tensors on the CPU by their names in a checkpoint; `folder`: the model folder that holds them; `model`:
    the transformers model in training, if this process has it in one piece."""

    weights: dict[str, Any]
    folder: Path
    model: Any

    def hashes(self) -> dict[str, str]:
        return {name: tensor_hash(tensor) for name, tensor in self.weights.items()}


def gather(trainer: Any, dtype: str) -> dict[str, Any] | None:
    """The served weights of `trainer.model` on the first process, None on the others; all have to call it.

    A tied output layer is there under both names.
    """
    whole = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    lora = trainer.model.peft_config["default"] if hasattr(trainer.model, "peft_config") else None
    merged = whole if lora is None else merge(whole, lora.lora_alpha / lora.r)
    weights = {name: _own(tensor.detach().to("cpu", getattr(torch, dtype))) for name, tensor in merged.items()}
    if HEAD not in weights and EMBEDDING in weights:
        weights[HEAD] = weights[EMBEDDING]
    return weights


def _own(tensor: Any) -> Any:
    """In a storage of its own: a gathered tensor may be a part of a larger one, which safetensors does not write."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor.contiguous() if whole else tensor.contiguous().clone()


def merge(state: dict[str, Any], scaling: float) -> dict[str, Any]:
    """W + scaling * B @ A under the base model's names, in float32 (arXiv 2106.09685, section 4.1); `state` is unchanged."""
    merged = {}
    for name, tensor in state.items():
        if name.endswith(ADAPTERS):
            continue
        module = name.removesuffix(".weight").removesuffix(LAYER)
        down, up = (state.get(module + adapter) for adapter in ADAPTERS)
        if name.endswith(LAYER + ".weight"):
            assert down is not None and up is not None, name
            tensor = tensor.float() + scaling * (up.float() @ down.float()).to(tensor.device)
        merged[name.removeprefix(PREFIX).replace(LAYER, "")] = tensor
    return merged


def write_model(weights: dict[str, Any], base: Path, dtype: str, target: Path) -> None:
    """A complete model folder: these weights, the base model's configuration in this data type, and its other files."""
    config = AutoConfig.from_pretrained(str(base), local_files_only=True)
    config.dtype = getattr(torch, dtype)
    tied = getattr(config, "tie_word_embeddings", False)
    stored = {name: tensor for name, tensor in weights.items() if not (tied and name == HEAD)}
    with whole_folder(target) as folder:
        save_torch_state_dict(stored, folder)
        config.save_pretrained(folder)
        copy_small_files(base, folder)


def publish(checkpoint: Path, target: Path, dtype: str, digest: str) -> None:
    """Copy the model folder `checkpoint` to `target`; StageFailed, and no folder, unless the digest of the copied weights
    is `digest`, that of the weights whose control score had the checkpoint chosen."""
    with whole_folder(target) as folder:
        for file in sorted(checkpoint.iterdir()):
            shutil.copyfile(file, folder / file.name)
        if weights_digest(checkpoint_hashes(folder, dtype)) != digest:
            raise StageFailed(
                f"{checkpoint} does not hold the weights that answered the control set, so it was changed afterwards; "
                f"remove {checkpoint.parent} and run `tldr run train` again."
            )


def copy_small_files(model_path: Path, folder: Path) -> None:
    """Carry every small file of the base model folder over (tokenizer, template, licence), byte for byte."""
    for file in sorted(model_path.iterdir()):
        kept = file.suffix in {".json", ".jinja", ".model", ".txt", ".md"} and not (folder / file.name).exists()
        if file.is_file() and kept and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
