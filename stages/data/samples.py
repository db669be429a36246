"""Read artifacts/samples.parquet and control.parquet (stage `sample`) and check that they belong to the problems at hand.

A file may hold more than fits in memory as Python objects: it is read a batch at a time, and token ids stay in Arrow's
buffers (4 bytes each) until somebody asks for those of one answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages._errors import UserError
from stages.data.problems import Problem

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

AGAIN = "run `tldr run sample` to make it again"
HASHES = ("decode_hash", "model_hash")  # columns that are the same in every row
KEY = ("source", "problem_id", "sample_index")
IDS = ("prompt_ids", "token_ids")
COLUMNS = (*KEY, *IDS, "text", "num_tokens", "finish_reason")
FINISH_REASONS = ("stop", "length", "repetition")
BATCH = 1000  # rows in memory at once, as many as `sample` puts into a row group

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One response as the engine gave it; `text` keeps special tokens, `num_tokens` counts `token_ids`."""

    _batch: pa.RecordBatch = field(repr=False, compare=False)
    _row: int = field(repr=False, compare=False)
    source: str
    problem_id: str
    sample_index: int
    text: str
    num_tokens: int
    finish_reason: str

    @property
    def key(self) -> Key:
        return self.source, self.problem_id, self.sample_index

    @property
    def prompt_ids(self) -> list[int]:
        return self._ids("prompt_ids")

    @property
    def token_ids(self) -> list[int]:
        return self._ids("token_ids")

    def _ids(self, column: str) -> list[int]:
        ids: list[int] = self._batch.column(column)[self._row].as_py()
        return ids


def read_samples(path: Path, decode_hash: str, model_hash: str | None = None) -> list[Sample]:
    """Rows in file order; errors as `read_batches`."""
    return [sample for batch in read_batches(path, decode_hash, model_hash) for sample in samples_of(batch)]


def samples_of(batch: pa.RecordBatch) -> list[Sample]:
    """The rows of one of `read_batches`."""
    plain = [batch.column(name).to_pylist() for name in COLUMNS if name not in IDS]
    return [Sample(batch, row, *values) for row, values in enumerate(zip(*plain, strict=True))]


def read_batches(
    path: Path, decode_hash: str, model_hash: str | None = None, order: NDArray[np.int64] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of at most BATCH rows of COLUMNS, in file order or, where `order` is given, the rows of these numbers; that
    takes the whole file into memory.

    UserError if the file is missing, damaged, or drawn with another decode specification or, where `model_hash` is given,
    from another model.
    """
    batches = _checked(path, _read(path, COLUMNS), decode_hash, model_hash)
    if order is None:
        yield from batches
        return
    import pyarrow as pa

    table = pa.Table.from_batches(batches)
    for start in range(0, len(order), BATCH):
        yield from table.take(order[start : start + BATCH]).combine_chunks().to_batches()


def read_keys(path: Path, decode_hash: str) -> Iterator[Key]:
    """Source, problem and number of every answer in file order; errors as `read_batches`, before anything is graded."""
    columns = [name for name in COLUMNS if name not in ("text", "prompt_ids")]
    for batch in _checked(path, _read(path, columns), decode_hash, None):
        yield from zip(*(batch.column(name).to_pylist() for name in KEY), strict=True)


def _read(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path} does not exist; run `tldr run sample` to make it.")
    try:
        with pq.ParquetFile(path) as file:
            missing = {*COLUMNS, *HASHES} - set(file.schema_arrow.names)
            if missing:
                raise UserError(f"{path} has no column {', '.join(sorted(missing))}; {AGAIN}.")
            yield from file.iter_batches(BATCH, columns=[*columns, *HASHES])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())}); {AGAIN}.") from None


def _checked(
    path: Path, batches: Iterable[pa.RecordBatch], decode_hash: str, model_hash: str | None
) -> Iterator[pa.RecordBatch]:
    """The same batches; UserError at the first that `read_batches` refuses."""
    for batch in batches:
        decoded, models = (set(batch.column(name).unique().to_pylist()) for name in HASHES)
        if decoded - {decode_hash}:
            raise UserError(f"{path} was drawn with other decode parameters than params.yaml has now; {AGAIN}.")
        if model_hash is not None and models - {model_hash}:
            raise UserError(f"{path} was drawn from another model than model.path holds now; {AGAIN}.")
        if damaged := _first_damaged(batch):
            raise UserError(f"{path}: answer {damaged['sample_index']} to {damaged['problem_id']} is damaged; {AGAIN}.")
        yield batch


def _first_damaged(batch: pa.RecordBatch) -> dict[str, Any] | None:
    """Key of the first row with another number of tokens than it says, or an unknown end."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.equal(pc.list_value_length(batch.column("token_ids")), batch.column("num_tokens"))
    ended = pc.is_in(batch.column("finish_reason"), pa.array(FINISH_REASONS))
    sound = pc.fill_null(pc.and_(counted, ended), False).to_numpy(zero_copy_only=False)
    if sound.all():
        return None
    damaged: list[dict[str, Any]] = batch.select(KEY).slice(int(sound.argmin()), 1).to_pylist()
    return damaged[0]


def last_positions(batch: pa.RecordBatch, token: int) -> list[int]:
    """Position of the last `token` in each row's token ids, 0 if there is none. No id becomes a Python object."""
    column = batch.column("token_ids")
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
    found = np.flatnonzero(values[offsets[0] : offsets[-1]] == token) + offsets[0]
    rows = np.searchsorted(offsets, found, side="right") - 1
    positions = np.zeros(len(column), dtype=np.int64)
    np.maximum.at(positions, rows, found - offsets[rows])
    return [int(position) for position in positions]


def check_keys(keys: Iterable[Key], problems: Mapping[str, Sequence[Problem]], file: str) -> NDArray[np.int64] | None:
    """UserError, naming the `file`, unless all `problems` (by source) have equally many answers and no other has any.

    Unequal numbers would bias "the shortest correct answer" towards the problems with more of them. None if the answers
    stand as `sample` writes them, problem after problem and by sample index; else the row numbers in that order. Takes
    about 90 bytes per answer.
    """
    known = {(source, problem.id): place for place, (source, problem) in enumerate(_flat(problems))}
    places, indices = array("q"), array("q")
    for source, problem_id, sample_index in keys:
        place = known.get((source, problem_id))
        if place is None:
            raise UserError(f"{file} answers {source}:{problem_id}, which is not in its problem file; {AGAIN}.")
        places.append(place)
        indices.append(sample_index)
    rows, numbers = np.array(places, dtype=np.int64), np.array(indices, dtype=np.int64)
    order = np.lexsort((numbers, rows))
    names = [":".join(key) for key in known]
    twice = order[1:][(np.diff(rows[order]) == 0) & (np.diff(numbers[order]) == 0)]
    if twice.size:
        row = twice.min()
        raise UserError(f"{file} holds answer {numbers[row]} to {names[rows[row]]} twice; {AGAIN}.")
    _check_counts(np.bincount(rows, minlength=len(known)), names, file)
    return None if np.array_equal(order, np.arange(len(order))) else order


def _flat(problems: Mapping[str, Sequence[Problem]]) -> Iterator[tuple[str, Problem]]:
    return ((source, problem) for source, rows in problems.items() for problem in rows)


def _check_counts(counts: NDArray[np.int64], names: Sequence[str], file: str) -> None:
    usual = counts.max(initial=0)
    for name, count in sorted(zip(names, counts, strict=True)):
        if count != usual or not usual:
            raise UserError(
                f"{file} holds {count} answers to {name} but {usual} to others, and every problem needs the same "
                f"number; {AGAIN}."
            )
