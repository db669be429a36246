"""Plain JSON Lines of answers as a run: with the verdicts in the file, or graded here where it has none.

Reads such a file (format: plain.py); writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from stages._errors import UserError
from stages.core.answers import is_cut
from stages.data.conditions import prompt_digest, prompts_digest
from stages.data.evaluations.plain import PlainRow, plain_rows
from stages.data.evaluations.run import Key, ReadSettings, Shape, Trace
from stages.data.evaluations.source import Source
from stages.data.lm_eval_tasks import has_thought
from stages.evidence.comparability import Conditions
from stages.evidence.questions import QuestionRow
from stages.verifier.final_answer import final_answer
from stages.verifier.grade import answer_text, grade_all

ALL = "all"  # the task of a file without tasks, so that two files pair whatever their names
BATCH = 64_000_000  # characters of answers that are in memory at once while they are graded
GOOD_END = "stop"  # how an answer ended of which the file does not say it


class PlainReader:
    """A `Reader` of one plain file."""

    def __init__(self, source: Source, settings: ReadSettings) -> None:
        self._source, self._settings = source, settings
        self._prompts: dict[str, dict[str, str]] = {}
        self._first: PlainRow | None = None
        self._num_graded = self._num_errors = 0

    def rows(self) -> Iterator[QuestionRow]:
        for row, verdicts in self._with_verdicts(plain_rows(self._source)):
            self._first = self._first or row
            task = row.task or ALL
            self._prompts.setdefault(task, {})[row.id] = prompt_digest(row.problem, row.gold)
            reasons = row.finish_reasons or (GOOD_END,) * len(verdicts)
            lengths = row.num_tokens or map(num_words, row.responses)
            for index, (text, correct, length, reason) in enumerate(
                zip(row.responses, verdicts, lengths, reasons, strict=True)
            ):
                cut = is_cut(reason)
                yield QuestionRow(
                    task, "", row.id, index, correct and not cut, length, cut, not has_thought(text, reason)
                )
        self._check_errors()

    def conditions(self, shapes: Mapping[str, Shape]) -> Conditions:
        assert self._first is not None, "rows() comes first"
        return Conditions(
            length_unit="words" if self._first.num_tokens is None else "tokens",
            verifier=self._settings.verifier if self._num_graded else None,
            prompts={task: prompts_digest(prompts.items()) for task, prompts in self._prompts.items()},
        )

    def notes(self) -> list[str]:
        assert self._first is not None, "rows() comes first"
        name, notes = self._source.name, []
        if self._first.finish_reasons is None:
            notes.append(
                f"{name} does not say how answers ended: those that were cut off are not counted as truncated."
            )
        if self._first.num_tokens is None:
            notes.append(f"{name} has no token counts: lengths are words.")
        if self._num_errors:
            notes.append(
                f"{name}: the verifier gave no verdict on {self._num_errors} of {self._num_graded} answers, which count as "
                "wrong."
            )
        return notes

    def refusal(self, error: ValueError) -> str:
        return f"{self._source.name}: {error}; correct the file."

    def texts(self, keys: Collection[Key]) -> dict[Key, Trace]:
        found = {}
        wanted: dict[tuple[str, str], list[int]] = {}
        for task, question_id, index in keys:
            wanted.setdefault((task, question_id), []).append(index)
        for row in plain_rows(self._source):
            task = row.task or ALL
            for index in wanted.get((task, row.id), ()):
                if index < len(row.responses):
                    text = row.responses[index]
                    found[task, row.id, index] = Trace(
                        row.problem, row.gold, text, final_answer(answer_text(text, "stop"))
                    )
        return found

    def _with_verdicts(self, rows: Iterator[PlainRow]) -> Iterator[tuple[PlainRow, tuple[bool, ...]]]:
        batch: list[PlainRow] = []
        size = 0
        for row in rows:
            if row.correct is not None:
                yield row, row.correct
                continue
            batch.append(row)
            size += sum(map(len, row.responses))
            if size > BATCH:
                yield from self._graded(batch)
                batch, size = [], 0
        if batch:
            yield from self._graded(batch)

    def _graded(self, rows: Iterable[PlainRow]) -> Iterator[tuple[PlainRow, tuple[bool, ...]]]:
        rows = list(rows)
        items = [
            (text, reason, row.gold)
            for row in rows
            for text, reason in zip(row.responses, row.finish_reasons or (GOOD_END,) * len(row.responses), strict=True)
        ]
        grades = grade_all(items, self._settings.verifier, self._settings.processes)
        self._num_graded += len(grades)
        self._num_errors += sum(grade.error for grade in grades)
        verdicts = iter(grades)
        for row in rows:
            yield row, tuple(next(verdicts).correct for _ in row.responses)

    def _check_errors(self) -> None:
        most = self._settings.max_error_rate
        if self._num_errors > most * self._num_graded:
            raise UserError(
                f"{self._source.name}: the verifier gave no verdict on {self._num_errors} of {self._num_graded} answers, "
                f"more than {most:.1%}, and they would count as wrong; correct the gold answers."
            )


def num_words(text: str) -> int:
    """Length in words, between white space, where nothing says how many tokens an answer had."""
    return len(text.split())
