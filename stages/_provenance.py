"""What an artefact was made from: content hashes, versions, seed and device; no times, speeds or revisions."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from stages._io import digest, file_digest, write_json
from stages._params import Params, used

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow", "lm-eval", "math-verify")


def provenance(params: Params, stage: str, keys: tuple[str, ...], module_file: str) -> dict[str, Any]:
    """A flat record; `keys` are the dotted keys of params.yaml that the stage reads."""
    return {
        "stage": stage,
        "code": file_digest(Path(module_file)),
        "params": digest(used(params, keys)),
        "seed": params.seed,
        "container_engine": params.container.engine,
        "device": params.container.device,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def write_provenance(root: Path, record: dict[str, Any], name: str) -> None:
    write_json(root / "artifacts" / "provenance" / f"{name}.json", record)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
