"""Hashes of weights: what a checkpoint holds, and what a transformers model serves, under the same names.

Reads safetensors files; writes nothing. `tensor_hash` treats 0.0 and -0.0 alike, because an engine that packs its
weights for a faster kernel is read through that kernel, which adds them to zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages._io import digest
from stages.data.model_folder import weight_files
from stages.engines.base import Engine

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
CONSTANT = ".rotary_emb.inv_freq"  # in old checkpoints; computed from the configuration and not served from the file
NUM_NAMED = 3  # tensors that a refusal names


def tensor_hash(tensor: Any) -> str:
    """First 16 hex digits of the SHA-256 of shape, dtype and bytes (row-major, on the CPU) of a torch tensor."""
    import hashlib

    import torch

    plain = (tensor.detach().cpu() + 0.0).contiguous()  # on the CPU, since a GPU may have no memory for the copy
    found = hashlib.sha256(f"{tuple(plain.shape)} {plain.dtype} ".encode())
    found.update(plain.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def checkpoint_hashes(folder: Path, dtype: str) -> dict[str, str]:
    """Hash per tensor of a model folder, in the data type that it is served in; a tied output layer under both names."""
    import torch
    from safetensors import safe_open

    hashes = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in (name for name in tensors.keys() if not name.endswith(CONSTANT)):  # noqa: SIM118 - not a dict
                hashes[name] = tensor_hash(tensors.get_tensor(name).to(getattr(torch, dtype)))
    if HEAD not in hashes and EMBEDDING in hashes:
        hashes[HEAD] = hashes[EMBEDDING]
    return hashes


def model_hashes(model: Any) -> dict[str, str]:
    """Hash per tensor of a transformers model as it is now."""
    return {name: tensor_hash(tensor) for name, tensor in model.state_dict().items()}


def weights_digest(hashes: dict[str, str]) -> str:
    """One digest of all tensors and their names, for records."""
    return digest(hashes)


def require_same_weights(served: dict[str, str], trained: dict[str, str], what: str) -> None:
    """StageFailed unless every tensor of `trained` is served, unchanged, and no other one is."""
    names = served.keys() | trained.keys()
    wrong = sorted(name for name in names if served.get(name) != trained.get(name))
    if wrong:
        named = ", ".join(wrong[:NUM_NAMED]) + (", ..." if len(wrong) > NUM_NAMED else "")
        raise StageFailed(
            f"The weights that answer are not those of {what}: {len(wrong)} of {len(names)} tensors differ "
            f"({named}); nothing that this engine answered is used. Run the stage again, and report this."
        )


def require_checkpoint(engine: Engine, folder: Path, dtype: str) -> None:
    """StageFailed unless `engine` serves exactly the weights of the model folder, in data type `dtype`."""
    require_same_weights(engine.weights(), checkpoint_hashes(folder, dtype), f"the model in {folder}")
