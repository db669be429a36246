"""Answers that several jobs draw, each a shard of the problems, and what the stage takes over from them.

The jobs (`tldr run STAGE --shard I/N`) share a disk, not memory: each keeps its answers in a work folder of its own,
.tldr/work/<stage>-shard-<I>-of-<N>/<fingerprint>/, whose fingerprint is that of the stage's own. The stage copies them into
its folder and draws what is missing, so a job that was lost costs time and no answer. An answer does not depend on who
draws it, so neither do the outputs (up to the rounding that batch composition causes, see `Engine.generate`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stages._errors import UserError
from stages._io import read_json, write_json
from stages._work import IN_USE, UNFINISHED, UNKNOWN, mark_done, survey, work_folder
from stages.data.response_store import ResponseStore
from stages.engines.base import Request, deal

RECORD = "provenance.json"
DEVICE_NAME = "device_name"


@dataclass(frozen=True)
class Shard:
    """Shard `index` (from 0) of `count`; ValueError unless 0 <= index < count."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard {self.index} of {self.count} does not exist")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "0/4", the first of four; ValueError for anything else."""
        index, _, count = text.partition("/")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def take(self, requests: Iterable[Request]) -> list[Request]:
        """This shard's share: every `count`-th problem, with all its samples."""
        return deal(list(requests), self.count)[self.index]

    def work_folder(
        self, root: Path, stage: str, settings: dict[str, Any], inputs: Iterable[Path]
    ) -> AbstractContextManager[Path]:
        """Where this shard of the stage keeps its answers; arguments as of `stages._work.work_folder`."""
        return work_folder(root, f"{stage}-shard-{self.index}-of-{self.count}", settings, inputs)


class Taken(NamedTuple):
    """Folders whose answers were taken over, and the names of the GPUs that drew them."""

    folders: list[Path]
    device_names: list[str]


def has_shards(root: Path, stage: str) -> bool:
    """Whether any shard of `stage` left work, of whichever parameters."""
    return any(True for base in _bases(root, stage) for _ in base.iterdir())


def leave_record(folder: Path, record: dict[str, Any]) -> None:
    """Say in the shard's work `folder` what draws (`stages._provenance.provenance`)."""
    write_json(folder / RECORD, record)


def take_over(root: Path, stage: str, work: Path, record: dict[str, Any]) -> Taken:
    """Copy the answers of the stage's shards into its own work folder `work`.

    `record` is the stage's provenance. UserError while a shard is being drawn, and for answers that other libraries drew.
    Where the disk knows no locks it cannot be seen that one is: then what it has is taken, and the rest drawn twice.
    Says on standard error what was taken, and what was not because it belongs to other parameters, inputs or code.
    """
    taken, number, others = Taken([], []), 0, 0
    for base in _bases(root, stage):
        name = base.name.removeprefix(f"{stage}-shard-").replace("-of-", "/")
        for found in survey(base):
            if found.name != work.name:
                others += found.state == UNFINISHED
            elif found.state == IN_USE:
                raise UserError(
                    f"Shard {name} of {stage} is being drawn; wait until it has ended, or stop it, and run again."
                )
            elif found.state in (UNFINISHED, UNKNOWN) and (found.path / RECORD).exists():  # else it has no answers
                device_name = _checked_device(name, stage, found.path, record)
                number += _copy(found.path, work)
                taken.folders.append(found.path)
                if device_name is not None and device_name not in taken.device_names:
                    taken.device_names.append(device_name)
    if taken.folders:
        _say(f"{stage}: {number:,} answers taken over from {_shards(len(taken.folders))}")
    if others:
        were = "was" if others == 1 else "were"
        used = "is not used" if others == 1 else "are not used"
        _say(f"{stage}: {_shards(others)} {were} drawn with other parameters, inputs, code or image, and {used}")
    return taken


def _shards(number: int) -> str:
    return f"{number} shard{'' if number == 1 else 's'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def mark_taken(taken: Taken) -> None:
    """Say that the outputs are in place, so that the shards' work is not used again."""
    for folder in taken.folders:
        mark_done(folder)


def merged_record(record: dict[str, Any], taken: Taken) -> dict[str, Any]:
    """The stage's provenance with the GPUs of all jobs, this one's too."""
    own = record[DEVICE_NAME]
    names = sorted({*taken.device_names, *([] if own is None else [own])})
    return record | {DEVICE_NAME: ", ".join(names) or None}


def _bases(root: Path, stage: str) -> list[Path]:
    return sorted(path for path in (root / ".tldr" / "work").glob(f"{stage}-shard-*-of-*") if path.is_dir())


def _checked_device(name: str, stage: str, folder: Path, record: dict[str, Any]) -> str | None:
    """Name of the GPU that drew the shard in `folder`; UserError if other versions than this job's drew it."""
    theirs = read_json(folder / RECORD, f"tldr run {stage} --shard {name}")
    drew, here = _versions(theirs), _versions(record)
    unequal = sorted(library for library in drew | here if drew.get(library) != here.get(library))
    if unequal:
        library = unequal[0]
        raise UserError(
            f"Shard {name} of {stage} was drawn with {library} {drew.get(library)}, but this job has {here.get(library)}; run "
            "all jobs in one image or environment, or remove the shard's answers with `tldr gc --all`."
        )
    device_name = theirs[DEVICE_NAME]
    return None if device_name is None else str(device_name)


def _versions(record: dict[str, Any]) -> dict[str, Any]:
    return {"python": record["python"], **record["libraries"]}


def _copy(source: Path, work: Path) -> int:
    """Copy what the stores in `source` hold and those of the same name in `work` do not; the number of answers."""
    number = 0
    for path in sorted(source.rglob("*.jsonl")):
        with ResponseStore(path) as theirs, ResponseStore(work / path.relative_to(source)) as ours:
            number += ours.add_all(theirs)
    return number
