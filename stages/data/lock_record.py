"""What dvc.lock says about the results at hand: which settings and which files they were made from.

Reads dvc.lock, params.yaml's parameters and the files under results/; writes nothing. Works on a fresh clone: what is not
in the checkout (artifacts/) is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._params import Params, read_yaml

RESULTS = ("results/", "artifacts/provenance/")
NEXT = "run `tldr repro` so that one run made them all"


def checked_lock(root: Path, params: Params) -> dict[str, dict[str, Any]]:
    """The stages of dvc.lock by name; empty without the file.

    UserError if params.yaml differs from what a stage ran with, if a stage ran on another version of a file than the one
    that the lock says was made, or if a file of results at hand is not the one that was made: then no one run made them.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    document = read_yaml(path)
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise UserError(f"{path} has no stages; restore it with `git checkout -- dvc.lock`.")
    made = {file: digest for stage in stages.values() for file, digest in _files(stage, "outs")}
    for name, stage in stages.items():
        _check_params(name, stage, params)
        for file, digest in _files(stage, "deps"):
            if made.get(file, digest) != digest:
                raise UserError(f"{name} ran on another {file} than dvc.lock says was made; {NEXT}.")
    for file, digest in made.items():
        if file.startswith(RESULTS) and (root / file).is_file() and _md5(root / file) != digest:
            raise UserError(f"{file} is not the file that dvc.lock records; {NEXT}.")
    return stages


def made_by(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """MD5 (DVC's; `.dir` at the end of a folder's) of every file that a stage made, by path."""
    return {file: digest for stage in stages.values() for file, digest in _files(stage, "outs")}


def used_by(stages: Mapping[str, Mapping[str, Any]], stage: str, path: str) -> str | None:
    """MD5 of the file or folder at `path` when `stage` read it; None if it did not."""
    return dict(_files(stages.get(stage, {}), "deps")).get(path)


def _files(stage: Mapping[str, Any], side: str) -> Iterator[tuple[str, str]]:
    for entry in stage.get(side) or ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str) and isinstance(entry.get("md5"), str):
            yield entry["path"], entry["md5"]


def _check_params(name: str, stage: Mapping[str, Any], params: Params) -> None:
    recorded = (stage.get("params") or {}).get("params.yaml") or {}
    for dotted, value in recorded.items():
        for part in reversed(dotted.split(".")):
            value = {part: value}
        for key, old, new in _differences("", value, params.model_dump()):
            raise UserError(
                f"params.yaml has {key}: {new}, and {name} ran with {old}; run `tldr repro`, or set it back to {old}."
            )


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Keys that both sides have and that differ: one that came later says nothing about an older run."""
    if isinstance(old, dict) and isinstance(new, dict):
        for part in sorted(old.keys() & new.keys()):
            yield from _differences(f"{key}.{part}".lstrip("."), old[part], new[part])
    elif old != new:
        yield key, old, new


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
