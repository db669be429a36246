"""Checkpoints of a training run in its work folder: which are whole, whose they are, and which are still needed.

`checkpoint-N` (transformers: master weights, optimiser, random states) is what a killed run goes on from; the file `whole`
in it is written last and holds the run's fingerprint. `step-0000N` is a model folder with the weights as they are served, of
the steps that may still be selected. No torch.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stages._errors import UserError
from stages._io import write_text

WHOLE = "whole"


def served(folder: Path, step: int) -> Path:
    """The model folder of `step`."""
    return folder / f"step-{step:05d}"


def last_step(folder: Path) -> int:
    """The step to go on from; 0 without a whole checkpoint. Nothing is removed: every process may ask."""
    return max((step for step, path in _checkpoints(folder) if (path / WHOLE).is_file()), default=0)


def mark_complete(folder: Path, step: int) -> None:
    """Make the checkpoint of `step` the one to go on from, and only then remove the others."""
    target = folder / f"checkpoint-{step}"
    for file in target.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    write_text(target / WHOLE, folder.name + "\n")
    remove_torn(folder, step)


def remove_torn(folder: Path, step: int) -> None:
    """Remove every checkpoint but that of `step`."""
    for other, path in _checkpoints(folder):
        if other != step:
            (path / WHOLE).unlink(missing_ok=True)  # first, so that a half-removed one is not taken for whole
            shutil.rmtree(path)


def require_fingerprint(folder: Path, step: int) -> None:
    """UserError unless the checkpoint of `step` was made by the run whose work folder this is."""
    path = folder / f"checkpoint-{step}"
    found = (path / WHOLE).read_text(encoding="utf-8").strip()
    if found != folder.name:
        raise UserError(
            f"{path} belongs to another run (fingerprint {found}, not {folder.name}), so training cannot go on from it; "
            "remove it and run again."
        )


def keep_served(folder: Path, steps: set[int]) -> None:
    """Remove the model folders of all steps but `steps`: no later decision selects them."""
    for path in folder.glob("step-*"):
        if int(path.name.split("-")[1]) not in steps:
            shutil.rmtree(path)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    return [(int(path.name.split("-")[1]), path) for path in sorted(folder.glob("checkpoint-*"))]
