"""Published benchmarks: a local file in its publisher's own columns, read as problems.

Reads JSON Lines (.jsonl, .jsonl.gz) or Parquet, writes nothing. Tasks name `benchmark_documents` as their
`custom_dataset`; their `dataset_kwargs` hold

    path           file; data/benchmarks/README.md lists those of the tasks in tasks/
    source         where the file is published, for the message that it is missing
    columns        {question: name or list of names, gold: name} and optionally id and group; without id, rows are numbered
    gold_format    how the gold is written: integer | latex | gsm8k | boxed | asdiv (stages/data/gold_answers.py)
    where          optional {column: text}: only rows whose column holds that text
    num_questions  optional: any other number of questions is refused
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages.data.gold_answers import FORMATS, clean_gold
from stages.data.problems import Problem

REQUIRED = ("columns", "gold_format", "source")
OPTIONAL = ("where", "num_questions")
READ_ELSEWHERE = ("verifier", "version", "config_source")  # by stages/data/lm_eval_tasks.py; lm-eval's metadata
COLUMNS = {"id", "question", "gold", "group"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """How to read one file; the fields are the keys that the module's docstring explains."""

    path: Path
    source: str
    columns: Mapping[str, Any]
    gold_format: str
    where: Mapping[str, str]
    num_questions: int | None

    @property
    def next_step(self) -> str:
        return f"take the file anew from {self.source}, or correct dataset_kwargs of its task"


def benchmark_documents(path: str, **settings: Any) -> dict[str, Any]:
    """The questions of the benchmark file `path` as the split `test`; lm-eval also passes the task's metadata."""
    from datasets import Dataset

    problems = read_benchmark(_benchmark(path, settings))
    rows = [{"id": p.id, "prompt": p.prompt, "gold": p.gold, "group": p.group or ""} for p in problems]
    return {"test": Dataset.from_list(rows)}


def read_benchmark(benchmark: Benchmark) -> list[Problem]:
    """Its problems in file order, without the task's instruction; UserError names file, row and column of a fault."""
    problems: list[Problem] = []
    first_rows: dict[str, str] = {}
    for number, row in _rows(benchmark):
        place = f"{benchmark.path}: row {number}"
        if not all(text in _cell(benchmark, row, column, place) for column, text in benchmark.where.items()):
            continue
        problem = _problem(benchmark, row, number, place)
        if problem.id in first_rows:
            raise UserError(
                f'{place} has the id "{problem.id}" of row {first_rows[problem.id]} in column '
                f'"{benchmark.columns["id"]}"; {benchmark.next_step}.'
            )
        first_rows[problem.id] = str(number)
        problems.append(problem)
    _check_number(benchmark, len(problems))
    return problems


def _benchmark(path: str, settings: Mapping[str, Any]) -> Benchmark:
    """`settings` checked: they come from a YAML file that a person wrote."""
    place = f"The task that reads {path}"
    unknown = sorted(settings.keys() - {*REQUIRED, *OPTIONAL, *READ_ELSEWHERE})
    if unknown:
        raise UserError(f'{place} has an unknown key "{unknown[0]}"; use {", ".join(REQUIRED + OPTIONAL)}.')
    missing = [key for key in REQUIRED if key not in settings]
    if missing:
        raise UserError(f'{place} has no "{missing[0]}"; add it to dataset_kwargs in its YAML file.')
    columns = settings["columns"]
    if not {"question", "gold"} <= columns.keys() <= COLUMNS:
        raise UserError(
            f"{place} has columns for {', '.join(columns)}; it needs question and gold, may have id and group."
        )
    if settings["gold_format"] not in FORMATS:
        raise UserError(f'{place} has gold_format "{settings["gold_format"]}"; choose one of {", ".join(FORMATS)}.')
    return Benchmark(
        path=Path(path),
        source=settings["source"],
        columns=columns,
        gold_format=settings["gold_format"],
        where=settings.get("where") or {},
        num_questions=settings.get("num_questions"),
    )


def _problem(benchmark: Benchmark, row: Row, number: int, place: str) -> Problem:
    columns = benchmark.columns
    question = columns["question"]
    parts = [_cell(benchmark, row, name, place) for name in ([question] if isinstance(question, str) else question)]
    published = _cell(benchmark, row, columns["gold"], place)
    try:
        gold = clean_gold(published, benchmark.gold_format)
    except ValueError as error:
        raise UserError(f'{place}, column "{columns["gold"]}" {error}; {benchmark.next_step}.') from None
    stem = benchmark.path.name.partition(".")[0]
    return Problem(
        id=_cell(benchmark, row, columns["id"], place) if "id" in columns else f"{stem}-{number}",
        prompt=" ".join(parts),
        gold=gold,
        group=_cell(benchmark, row, columns["group"], place) if "group" in columns else None,
        difficulty=None,
    )


def _cell(benchmark: Benchmark, row: Row, column: str, place: str) -> str:
    """A cell as text without outer space. AMC's golds are floating-point numbers, many ids are integers."""
    if column not in row:
        held = ", ".join(map(str, row)) or "none"
        raise UserError(f'{place} has no column "{column}" (it has {held}); {benchmark.next_step}.')
    value = row[column]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    missing = isinstance(value, float) and math.isnan(value)  # how pandas writes an empty cell
    if value is None or missing or (isinstance(value, str) and not value.strip()):
        raise UserError(f'{place}, column "{column}" is empty; {benchmark.next_step}.')
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f'{place}, column "{column}" holds neither text nor a number; {benchmark.next_step}.')
    return str(value).strip()


def _check_number(benchmark: Benchmark, number: int) -> None:
    wanted = benchmark.num_questions
    if number == 0 or (wanted is not None and number != wanted):
        chosen = "".join(f' whose "{column}" holds "{text}"' for column, text in benchmark.where.items())
        expected = "" if wanted is None else f" instead of {wanted}"
        raise UserError(f"{benchmark.path} has {number} questions{chosen}{expected}; {benchmark.next_step}.")


def _rows(benchmark: Benchmark) -> Iterable[tuple[int, Row]]:
    """Numbered rows: the lines of a JSON Lines file from 1 (blank ones are skipped), the rows of a Parquet file from 1."""
    path = benchmark.path
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; download {benchmark.source} (Hugging Face data set) to that place, see "
            "data/benchmarks/README.md."
        )
    if path.name.endswith(".parquet"):
        return enumerate(_parquet_rows(benchmark), start=1)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _json_rows(benchmark)
    raise UserError(f"{path} is neither .jsonl, .jsonl.gz nor .parquet; name a file of one of these kinds.")


def _parquet_rows(benchmark: Benchmark) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[Row] = parquet.read_table(benchmark.path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{benchmark.path} is no readable Parquet file ({reason}); {benchmark.next_step}.") from None
    return rows


def _json_rows(benchmark: Benchmark) -> Iterator[tuple[int, Row]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(_text(benchmark).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{benchmark.path}: row {number} is not JSON ({error}); {benchmark.next_step}.") from None
        if not isinstance(row, dict):
            raise UserError(f"{benchmark.path}: row {number} is no JSON object; {benchmark.next_step}.")
        yield number, row


def _text(benchmark: Benchmark) -> str:
    path = benchmark.path
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.name.endswith(".gz") else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text: {error.reason} at byte {error.start}"
    except EOFError:
        reason = "compressed data that end too early: the file is cut"
    except zlib.error as error:
        reason = f"damaged compressed data: {error}"
    except OSError as error:  # also gzip.BadGzipFile
        reason = error.strerror or str(error)
    raise UserError(f"{path} cannot be read ({reason}); {benchmark.next_step}.")
