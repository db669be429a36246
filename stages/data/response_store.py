"""The store of finished answers that an interrupted evaluation goes on from: append-only, one file per way of drawing.

An answer is found again by its question, its repeat and the prompt's token ids, in a file whose name covers everything
else that it depends on (`store_path`). So a lookup gives what the engine would draw, or nothing: another task, another
prompt of a question of the same name, another model or another code of the engine never meets it. Reads and writes that
file; damaged lines are passed over and their answers drawn again.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from stages._errors import UserError
from stages._io import canonical_json, digest, file_digest
from stages._params import Params
from stages._provenance import current_image
from stages.engines.base import DecodeSpec, Request, Response

ENGINES = Path(__file__).resolve().parents[1] / "engines"
Key = tuple[str, int, str]  # question, repeat, digest of the prompt's ids


def evaluations_folder(root: Path, model_digest: str) -> Path:
    """Where evaluations that DVC does not track keep their records and answers."""
    return root / ".tldr" / "evaluations" / model_digest


def store_path(folder: Path, params: Params, model_digest: str, spec: DecodeSpec) -> Path:
    """The file in `folder`/responses for answers of the model whose folder has that digest (`folder_digest`).

    Its name covers model, decode specification, seed, engine, number format, device, image and the code of the engines.
    """
    made_by = {
        "model": model_digest,
        "decode": spec.digest,
        "seed": params.seed,
        "engine": params.engine.name,
        "dtype": params.model.dtype,
        "device": params.container.device,
        "image": current_image(),
        "code": {path.name: file_digest(path) for path in sorted(ENGINES.glob("*.py"))},
    }
    return folder / "responses" / f"{digest(made_by)}.jsonl"


class ResponseStore:
    """Answers by request. In memory there is only where each answer lies in the file.

    A context manager that one process at a time may hold: UserError if another one has the file open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: BinaryIO = path.open("a+b")
        self._lock(path)
        self._offsets: dict[Key, int] = {}
        num_damaged = self._index()
        if num_damaged:
            print(
                f"{path} has {num_damaged} damaged line{'s' if num_damaged > 1 else ''}; the {len(self._offsets)} intact "
                "answers are kept, the others are drawn again.",
                file=sys.stderr,
            )

    def __contains__(self, request: Request) -> bool:
        return _key(request) in self._offsets

    def read(self, request: Request) -> Response:
        """The stored answer to `request`; KeyError if there is none."""
        self._stream.seek(self._offsets[_key(request)])
        row = _intact(self._stream.readline())
        assert row is not None, "an indexed line was intact when it was indexed"
        del row["prompt"]
        return Response(**{**row, "token_ids": tuple(row["token_ids"])})

    def add(self, request: Request, response: Response) -> None:
        """Append the answer to `request`; it outlives a SIGKILL from here on."""
        row = asdict(response) | {"prompt": _key(request)[2]}
        self._append(_key(request), canonical_json(row | {"crc": _checksum(row)}).encode() + b"\n")

    def add_all(self, other: ResponseStore) -> int:
        """Append what `other` holds and this store does not; the number of answers added."""
        missing = [key for key in other._offsets if key not in self._offsets]
        for key in missing:
            other._stream.seek(other._offsets[key])
            self._append(key, other._stream.readline())
        return len(missing)

    def _append(self, key: Key, line: bytes) -> None:
        offset = self._stream.seek(0, os.SEEK_END)
        self._stream.write(line)
        self._stream.flush()
        self._offsets[key] = offset

    def __enter__(self) -> ResponseStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise UserError(f"{path} is in use by another evaluation of this model; wait until it has ended.") from None
        except OSError:
            pass  # the disk knows no locks

    def _index(self) -> int:
        """Note where every intact line begins, cut off a torn last one; the number of damaged lines."""
        self._stream.seek(0)
        offset = num_damaged = 0
        for line in self._stream:
            row = _intact(line)
            if row is None:
                num_damaged += 1
            else:
                self._offsets[row["problem_id"], row["sample_index"], row["prompt"]] = offset
            if not line.endswith(b"\n"):
                self._stream.truncate(offset)
                break
            offset += len(line)
        return num_damaged


def _key(request: Request) -> Key:
    return request.problem_id, request.sample_index, digest(list(request.prompt_ids))


def _intact(line: bytes) -> dict[str, Any] | None:
    """The row of a whole line, without its checksum; None for anything else."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(row, dict) or row.pop("crc", None) != _checksum(row):
        return None
    return row


def _checksum(row: dict[str, Any]) -> int:
    return zlib.crc32(canonical_json(row).encode())
