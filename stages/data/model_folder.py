"""Check a model folder before anything heavy is imported: config, whole safetensors files, tokenizer, chat template.

Reads a Hugging Face folder (config.json, *.safetensors, tokenizer files) and writes nothing; no torch. Each `UserError`
is one sentence with the next step. File format: https://huggingface.co/docs/safetensors (8 bytes of header length,
little-endian, then a JSON header with `data_offsets` per tensor, then the tensors).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from stages._errors import UserError

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # limit of the safetensors format
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
LFS_POINTER = b"version https://git-lfs"


def check_model(path: Path) -> None:
    """Return if the folder at `path` can be loaded; UserError says what is missing or broken in it."""
    if not path.is_dir():
        raise UserError(
            f"The model folder {path} does not exist; set model.path in params.yaml to a local folder "
            "(a model of the hub: `hf download NAME --local-dir FOLDER`)."
        )
    _check_config(path)
    for file in weight_files(path):
        check_safetensors(file)
    _check_tokenizer(path)


def read_config(path: Path) -> dict[str, Any]:
    """Contents of the folder's config.json."""
    return _read_json(path / "config.json", path)


def end_token_ids(path: Path) -> list[int]:
    """Ids that end an answer: those of generation_config.json, else of config.json (as transformers does)."""
    file = path / "generation_config.json"
    ends = _read_json(file, path).get("eos_token_id") if file.is_file() else None
    ends = read_config(path).get("eos_token_id") if ends is None else ends
    if ends is None:
        raise UserError(f"{path / 'config.json'} names no eos_token_id, so no answer would end; add it.")
    return [ends] if isinstance(ends, int) else [int(end) for end in ends]


def num_parameters(path: Path) -> int:
    """Numbers in all tensors of the folder; the files have passed `check_model`."""
    count = 0
    for file in weight_files(path):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            header = json.loads(stream.read(length))
        count += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return count


def check_safetensors(file: Path) -> None:
    """UserError unless `file` has a whole safetensors header and exactly the bytes that the header announces."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(LENGTH_BYTES)
        if (start + stream.read(len(LFS_POINTER))).startswith(LFS_POINTER):
            raise UserError(f"{file} is a git-lfs pointer, not the weights; fetch them with `git lfs pull`.")
        length = int.from_bytes(start, "little")
        stream.seek(LENGTH_BYTES)
        broken = len(start) < LENGTH_BYTES or length > MAX_HEADER_BYTES
        header = None if broken else stream.read(length)
    if header is not None and len(header) < length and header.startswith(b"{"):
        raise UserError(f"{file} is truncated within its header; copy or download it again.")
    data_bytes = _data_bytes(header)
    if data_bytes is None:
        raise UserError(
            f"{file} is not a safetensors file (or is cut short); copy or download it again, "
            "or write the model with save_pretrained(folder, safe_serialization=True)."
        )
    expected = LENGTH_BYTES + length + data_bytes
    if size != expected:
        kind = "truncated" if size < expected else "too long"
        raise UserError(f"{file} is {kind} ({size:,} of {expected:,} bytes); copy or download it again.")


def _data_bytes(header: bytes | None) -> int | None:
    """Bytes of tensor data that the header announces; None if it is not a safetensors header."""
    try:
        tensors = json.loads(header or b"")
        return max((entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _check_config(path: Path) -> None:
    config = _read_json(path / "config.json", path)
    if "model_type" not in config:
        raise UserError(f"{path / 'config.json'} names no model_type; {path} is not a transformers model folder.")


def weight_files(path: Path) -> list[Path]:
    """The safetensors files that a model folder is loaded from: those its index names, else all; UserError if none."""
    index = path / INDEX
    if index.is_file():
        return _shards(path, index)
    files = sorted(path.glob("*.safetensors"))
    if files:
        return files
    if any(file for pattern in PICKLES for file in path.glob(pattern)):
        raise UserError(
            f"{path} holds pickled weights only, which are not loaded; convert them once with "
            "save_pretrained(folder, safe_serialization=True)."
        )
    raise UserError(f"{path} holds no *.safetensors file; copy the weights there or correct model.path in params.yaml.")


def _shards(path: Path, index: Path) -> list[Path]:
    shards = _read_json(index, path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index} has no weight_map; copy or download the model folder again.")
    files = sorted({path / str(name) for name in shards.values()})
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}, named in {INDEX}; copy or download the model folder again."
        )
    return files


def _check_tokenizer(path: Path) -> None:
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained({str(path)!r}).")
    settings = _read_json(path / "tokenizer_config.json", path)
    in_file = (path / "chat_template.jinja").is_file() or (path / "chat_template.json").is_file()
    if not settings.get("chat_template") and not in_file:
        raise UserError(
            f"The tokenizer in {path} has no chat template; set tokenizer.chat_template to the template that the model "
            "was trained with and save it there with save_pretrained."
        )


def _read_json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {file.name}, so it is not a whole model folder; copy or download it again, "
            "or correct model.path in params.yaml."
        ) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid JSON ({error}); copy or download it again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} must hold a JSON object; copy or download it again.")
    return value
