"""Conditions that lie beside results: X.json beside the question table X.csv, conditions.json beside response records.

Reads such a file, checks that it belongs to what lies beside it; writes nothing. A table without one (of an older
revision, or of other make) is read all the same: of it nothing is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, BinaryIO, cast

from stages._errors import UserError
from stages.data.conditions import conditions_of, read_document
from stages.data.evaluations.lines import read_whole
from stages.data.evaluations.run import Shape
from stages.data.evaluations.source import Source
from stages.evidence.comparability import Conditions


def conditions_beside(results: Source, name: str, shapes: Mapping[str, Shape], *, table: bool) -> Conditions | None:
    """Conditions in the file `name` beside `results`, None if there is none; UserError if it describes other results.

    `shapes` are those of the tasks in `results`; with `table` the file may also state the digest of `results`.
    """
    source = results.beside(name)
    if not source.exists():
        return None
    try:
        document = read_document(read_whole(source), source.name)
        _check_shapes(document, source.name, results.name, shapes)
    except ValueError as error:
        raise UserError(f"{error}; take both files from the same run, or remove {source.name}.") from None
    if table and document.get("table") not in (None, source_digest(results)):
        raise UserError(
            f"{source.name} describes another table than {results.name} is now; take both files from the same run, or "
            f"remove {source.name}."
        )
    return conditions_of(document)


def _check_shapes(document: Mapping[str, Any], name: str, results: str, shapes: Mapping[str, Shape]) -> None:
    for task, (num_questions, num_samples) in shapes.items():
        stated = document["tasks"].get(task, {})
        for key, found in (("num_questions", num_questions), ("samples", num_samples)):
            if stated.get(key) not in (None, found):
                raise ValueError(f"{name} says {key} {stated[key]} for task {task}, but {results} has {found}")


def source_digest(source: Source) -> str:
    """As `stages._io.file_digest`."""
    with source.open() as stream:
        return hashlib.file_digest(cast("BinaryIO", stream), "sha256").hexdigest()[:16]  # type: ignore[arg-type]


def merged(parts: Sequence[Conditions], tasks: Sequence[Collection[str]]) -> Conditions:
    """Conditions of a run whose tasks lie in several places; `tasks` are those of each part.

    What the parts do not share is not known of the whole, except how the answers of each task were drawn and graded.
    """
    if len(parts) == 1:
        return parts[0]

    def common(name: str) -> Any:
        first = getattr(parts[0], name)
        return first if all(getattr(part, name) == first for part in parts) else None

    named = [(part, task) for part, mine in zip(parts, tasks, strict=True) for task in mine]
    return Conditions(
        length_unit=parts[0].length_unit,
        **{name: common(name) for name in ("tokenizer", "model", "engine", "seed")},
        versions={task: part.versions[task] for part, task in named if task in part.versions},
        prompts={task: part.prompts[task] for part, task in named if task in part.prompts},
        task_decode={task: part.decode_of(task) for part, task in named},
        task_verifier={task: rule for part, task in named if (rule := part.verifier_of(task)) is not None},
    )
