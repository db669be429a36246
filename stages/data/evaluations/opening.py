"""From what a user names to a `Run`: finds out what kind of files it is, and has the reader for it read them.

Reads the named files, what lies beside them, and git; writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from stages._errors import UserError
from stages.data.evaluations.graded import PlainReader
from stages.data.evaluations.lines import json_rows
from stages.data.evaluations.logged_samples import LoggedTask, SampleReader
from stages.data.evaluations.records import RecordReader
from stages.data.evaluations.run import Reader, ReadSettings, Run
from stages.data.evaluations.source import Source
from stages.data.evaluations.tables import TableReader

RECORDS = ("responses.parquet", "records.parquet")
LINES = (".jsonl", ".jsonl.gz")
SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl(?:\.gz)?")
KINDS = (
    "a question table (.csv), response records (.parquet), samples that lm-eval logged or answers (.jsonl, .jsonl.gz)"
)


def open_run(spec: str, *, root: Path | None, rev: str | None = None, settings: ReadSettings) -> Run:
    """The results that `spec` names: a path, or REV:PATH (or a PATH with `rev`) for a file as a git revision holds it.

    A path is relative to the current folder, one in a revision to `root` (the checkout; without one, the current folder).
    UserError says in one sentence what cannot be read and why.
    """
    from stages.evidence.estimates import question_tables

    source = _source(spec, root, rev)
    reader = _reader(source, root, settings)
    try:
        tables = question_tables(reader.rows())
    except ValueError as error:
        raise UserError(reader.refusal(error)) from None
    shapes = {task: (table.num_questions, table.num_samples) for task, table in tables.items()}
    return Run(source.name, tables, reader.conditions(shapes), tuple(reader.notes()), reader.texts)


def _source(spec: str, root: Path | None, rev: str | None) -> Source:
    name = spec if rev is None else f"{rev}:{spec}"
    try:
        exists = Path(spec).exists()
    except OSError as error:  # a name that is too long
        raise UserError(f"{name[:80]} cannot be read ({error.strerror}); name {KINDS}.") from None
    if rev is None and not exists:
        before, colon, after = spec.partition(":")
        if colon and before and after:
            rev, spec = before, after
    if rev is None:
        return Source(name, Path(spec))
    if rev.startswith("-") or ":" in rev:
        raise UserError(
            f"{name}: {rev} is no git revision; write REV:PATH, as in main:results/questions/candidate.csv."
        )
    place, path = (root or Path.cwd()).resolve(), Path(spec)
    return Source(name, path.relative_to(place) if path.is_relative_to(place) else path, rev, place)


def _reader(source: Source, root: Path | None, settings: ReadSettings) -> Reader:
    file = source.path.name
    if source.revision is None and source.path.is_dir():
        return _folder_reader(source, root)
    if file.endswith(".csv"):
        return TableReader(source)
    if file.endswith(".parquet"):
        return RecordReader([source], root)
    if file.endswith(LINES):
        return SampleReader(source.name, [_logged(source)]) if _is_logged(source) else PlainReader(source, settings)
    if source.revision is None and not source.path.exists():
        raise UserError(f"{source.name} does not exist; name {KINDS}.")
    raise UserError(f"{source.name} is of no kind that can be read; name {KINDS}.")


def _is_logged(source: Source) -> bool:
    """Whether the first line is one of lm-eval's, which any name may have been given."""
    _, first = next(json_rows(source, allow_nan=True))
    return "resps" in first and "responses" not in first


def _logged(source: Source) -> LoggedTask:
    """The file with its task and the results of the same date, both from its name as lm-eval gave it."""
    match = SAMPLES.fullmatch(source.path.name)
    if match is None:
        return LoggedTask(source.path.name.partition(".")[0], source, None)
    found = source.beside(f"results_{match['date']}.json")
    if not found.exists() and source.revision is None:  # `--output_path NAME.json` gives NAME_<date>.json
        others = sorted(source.path.parent.glob(f"*_{match['date']}.json"))
        found = source.beside(others[0].name) if others else found
    return LoggedTask(match["task"], source, found)


def _folder_reader(source: Source, root: Path | None) -> Reader:
    """Records or logged samples in the folder, else in the folders in it (lm-eval makes one per model, `tldr run evaluate`
    one per task)."""
    inner = [path for path in sorted(source.path.iterdir()) if path.is_dir()]
    for folders in ([source.path], inner):
        records = [folder / name for folder in folders for name in RECORDS if (folder / name).is_file()]
        if records:
            return RecordReader([_inside(source, path) for path in records], root)
        logged = [path for folder in folders for path in sorted(folder.iterdir()) if SAMPLES.fullmatch(path.name)]
        if logged:
            return SampleReader(source.name, _one_per_task(source, logged))
    raise UserError(f"{source.name} holds neither {' nor '.join(RECORDS)} nor samples_*.jsonl; name {KINDS}.")


def _one_per_task(source: Source, paths: Sequence[Path]) -> list[LoggedTask]:
    """Different tasks may be of different dates, but which of two results of one task is meant cannot be guessed."""
    files: dict[str, LoggedTask] = {}
    for path in paths:
        file = _logged(_inside(source, path))
        if file.task in files:
            raise UserError(
                f"{source.name} holds task {file.task} twice, in {files[file.task].source.path.name} and {path.name}; name "
                "the file or folder that is meant, or move the other away."
            )
        files[file.task] = file
    return list(files.values())


def _inside(source: Source, path: Path) -> Source:
    return Source(f"{source.name.rstrip('/')}/{path.relative_to(source.path).as_posix()}", path)
