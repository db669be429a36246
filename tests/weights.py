"""Model folders that differ from another one as little as a tensor can: in one number, by one step of its data type."""

from __future__ import annotations

import shutil
from pathlib import Path


def tensor_names(folder: Path) -> list[str]:
    from safetensors.torch import load_file

    return sorted(load_file(folder / "model.safetensors"))


def nudged(folder: Path, target: Path, name: str, dtype: str = "float32") -> Path:
    """A copy of the model folder at `target` in which the largest number of tensor `name` is the next one upwards in
    `dtype`; `target` is overwritten."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target, dirs_exist_ok=True)
    tensors = load_file(target / "model.safetensors")
    flat = tensors[name].to(getattr(torch, dtype)).flatten()
    place = int(flat.float().abs().argmax())
    flat[place] = torch.nextafter(flat[place], torch.tensor(torch.inf, dtype=flat.dtype))
    tensors[name] = flat.reshape(tensors[name].shape).to(tensors[name].dtype)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target
