"""Read artifacts/samples.parquet and control.parquet (stage `sample`) and check that they belong to the problems at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from stages._errors import UserError
from stages.data.problems import Problem

AGAIN = "run `tldr run sample` to make it again"
HASHES = ("decode_hash", "model_hash")  # columns that are the same in every row
FINISH_REASONS = {"stop", "length", "repetition"}


@dataclass(frozen=True)
class Sample:
    """One response as the engine gave it; `text` keeps special tokens, `num_tokens` counts `token_ids`."""

    source: str
    problem_id: str
    sample_index: int
    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    num_tokens: int
    finish_reason: str


def read_samples(path: Path, decode_hash: str, model_hash: str | None = None) -> list[Sample]:
    """Rows in file order; UserError if the file is missing, damaged, or drawn with another decode specification or, where
    `model_hash` is given, from another model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path} does not exist; run `tldr run sample` to make it.")
    columns = [field.name for field in fields(Sample)]
    try:
        with pq.ParquetFile(path) as file:
            missing = {*columns, *HASHES} - set(file.schema_arrow.names)
            if missing:
                raise UserError(f"{path} has no column {', '.join(sorted(missing))}; {AGAIN}.")
            rows = file.read(columns=[*columns, *HASHES]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())}); {AGAIN}.") from None
    hashes = {tuple(row.pop(name) for name in HASHES) for row in rows}
    if any(found != decode_hash for found, _ in hashes):
        raise UserError(f"{path} was drawn with other decode parameters than params.yaml has now; {AGAIN}.")
    if model_hash is not None and any(found != model_hash for _, found in hashes):
        raise UserError(f"{path} was drawn from another model than model.path holds now; {AGAIN}.")
    samples = [Sample(**row) for row in rows]
    for sample in samples:
        if sample.num_tokens != len(sample.token_ids) or sample.finish_reason not in FINISH_REASONS:
            raise UserError(f"{path}: answer {sample.sample_index} to {sample.problem_id} is damaged; {AGAIN}.")
    return samples


def check_samples(samples: Sequence[Sample], problems: Mapping[str, Sequence[Problem]], file: str) -> None:
    """UserError, naming the `file`, unless all `problems` (by source) have equally many answers and no other has any.

    Unequal numbers would bias "the shortest correct answer" towards the problems with more of them.
    """
    known = {(source, problem.id) for source, rows in problems.items() for problem in rows}
    counts: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[str, str, int]] = set()
    for sample in samples:
        key = (sample.source, sample.problem_id)
        name = ":".join(key)
        if key not in known:
            raise UserError(f"{file} answers {name}, which is not in its problem file; {AGAIN}.")
        if (*key, sample.sample_index) in seen:
            raise UserError(f"{file} holds answer {sample.sample_index} to {name} twice; {AGAIN}.")
        seen.add((*key, sample.sample_index))
        counts[key] += 1
    usual = max(counts.values(), default=0)
    for source, problem_id in sorted(known):
        if counts[source, problem_id] != usual or not usual:
            raise UserError(
                f"{file} holds {counts[source, problem_id]} answers to {source}:{problem_id} but {usual} to "
                f"others, and every problem needs the same number; {AGAIN}."
            )
