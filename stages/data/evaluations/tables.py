"""Our question tables: results/questions/*.csv, with the conditions of the run in the .json of the same name beside it.

Reads those two files; writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from stages._errors import UserError
from stages.data.evaluations.lines import bounded_lines
from stages.data.evaluations.run import Key, Shape, Trace
from stages.data.evaluations.sidecar import conditions_beside
from stages.data.evaluations.source import Source
from stages.evidence.comparability import Conditions
from stages.evidence.questions import COLUMNS, QuestionRow, distinct_rows, question_rows

AGAIN = "write the table anew, or take it from the run that made it"


class TableReader:
    """A `Reader` of one question table."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def rows(self) -> Iterator[QuestionRow]:
        self._check_header()
        with self._source.open() as stream:
            lines = (line.decode() for _, line in bounded_lines(self._source, stream))
            for _, row in question_rows(self._source.name, lines):
                yield row

    def conditions(self, shapes: Mapping[str, Shape]) -> Conditions:
        name = f"{self._source.path.stem}.json"
        found = conditions_beside(self._source, name, shapes, table=True)
        return Conditions(length_unit="tokens") if found is None else found

    def notes(self) -> list[str]:
        return []

    def refusal(self, error: ValueError) -> str:
        """A row that stands twice is looked for once more, now with its lines."""
        name = self._source.name
        with self._source.open() as stream:
            lines = (line.decode() for _, line in bounded_lines(self._source, stream))
            try:
                for _ in distinct_rows(name, lines):
                    pass
            except ValueError as precise:
                return f"{precise}; {AGAIN}."
        return f"{name}: {error}; {AGAIN}."

    def texts(self, keys: Collection[Key]) -> dict[Key, Trace]:
        """A question table holds no texts."""
        return {}

    def _check_header(self) -> None:
        with self._source.open() as stream:
            _, first = next(bounded_lines(self._source, stream), (0, b""))
        if not first:
            raise UserError(f"{self._source.name} is empty; {AGAIN}.")
        header = first.decode(errors="replace").strip()
        if header != ",".join(COLUMNS):
            shown = header if len(header) <= 120 else f"{header[:120]}..."
            raise UserError(
                f"{self._source.name}, line 1: the header is {shown!r}, but that of a question table is {','.join(COLUMNS)}; "
                "name another file."
            )
