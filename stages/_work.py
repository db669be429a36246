"""Partial work of a stage: a folder outside DVC's outputs that a killed run goes on from.

`.tldr/work/<stage>/<fingerprint>/`, where the fingerprint covers everything that the answers or weights in it depend on.
A folder that is marked done belongs to a run that ended well: the next run of the stage starts afresh.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages._io import digest, file_digest, folder_digest, write_text
from stages._provenance import current_image

DONE = "done"


def work_folder(root: Path, stage: str, settings: dict[str, Any], inputs: Iterable[Path]) -> Path:
    """The folder to go on in (created). `inputs` are files or flat folders, hashed by content; so are the code of
    stages/ and the image."""
    contents = {str(path): folder_digest(path) if path.is_dir() else file_digest(path) for path in inputs}
    code = {str(path.relative_to(CODE)): file_digest(path) for path in sorted(CODE.rglob("*.py"))}
    base = root / ".tldr" / "work" / stage
    made_by = {"settings": settings, "inputs": contents, "code": code, "image": current_image()}
    folder = base / digest(made_by)
    for other in base.glob("*"):
        if other != folder or (folder / DONE).exists():
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mark_done(folder: Path) -> None:
    """Say that the stage's outputs are in place, so that the next run does not reuse this work."""
    write_text(folder / DONE, "")


CODE = Path(__file__).resolve().parent
