"""`tldr grade FILE`: grade the answers of a file with our verifier, and compare with the verdicts that it carries.

Reads plain JSON Lines of answers (stages/data/evaluations/plain.py); writes nothing. An answer on which the verifier gives
no verdict counts as wrong, and agrees with nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from stages.verifier.grade import Grade

SCHEMA_VERSION = 1
GOOD_END = "stop"  # of an answer of which the file does not say how it ended
LINE_SECONDS = 10.0  # where standard error is no terminal, one line of progress at most this often
MOST_SHOWN = 60  # characters of a gold or an answer, for a person


@click.command("grade")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--processes", type=click.IntRange(1, 256), help="Worker processes; as many as there are cores if not given."
)
@click.option(
    "--verifier",
    type=click.Choice(["math", "exact"]),
    default="math",
    show_default=True,
    help="How answers are graded.",
)
def command(file: Path, as_json: bool, processes: int | None, verifier: str) -> None:
    """Grade answers with our verifier, and compare with verdicts that a file carries.

    FILE is .jsonl or .jsonl.gz with one question per line: id, problem, gold, responses (a list) and optionally correct
    (a list of verdicts, which are compared with ours) and finish_reasons (an answer that was cut off is wrong).
    """
    answers = read_answers(file)
    grades = _graded(answers, verifier, processes or os.cpu_count() or 1)
    report = summarise(answers, grades)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for line in _text(report):
        click.echo(line)


@dataclass(frozen=True)
class Answer:
    """One response of the file; `recorded` is the file's own verdict, None if it has none."""

    line: int
    task: str | None
    id: str
    sample_index: int
    gold: str
    text: str
    finish_reason: str
    recorded: bool | None


def read_answers(file: Path) -> list[Answer]:
    """Every response in the order of the file; UserError names the line and the field of a fault."""
    from stages.data.evaluations.plain import read_plain

    answers = []
    for row in read_plain(file):
        num = len(row.responses)
        ends, verdicts = row.finish_reasons or (GOOD_END,) * num, row.correct or (None,) * num
        answers += [
            Answer(row.line, row.task, row.id, index, row.gold, text, end, recorded)
            for index, (text, end, recorded) in enumerate(zip(row.responses, ends, verdicts, strict=True))
        ]
    return answers


def summarise(answers: Sequence[Answer], grades: Sequence[Grade]) -> dict[str, Any]:
    """Counts; `agree` and `disagree` are None where the file has no verdicts."""
    pairs = list(zip(answers, grades, strict=True))
    compared = [(answer, grade) for answer, grade in pairs if answer.recorded is not None]
    differing = [_difference(*pair) for pair in compared if pair[1].error or pair[1].correct != pair[0].recorded]
    return {
        "schema_version": SCHEMA_VERSION,
        "responses": len(pairs),
        "correct": sum(grade.correct for grade in grades),
        "agree": len(compared) - len(differing) if compared else None,
        "disagree": len(differing) if compared else None,
        "verifier_errors": sum(grade.error for grade in grades),
        "disagreements": differing,
    }


def _difference(answer: Answer, grade: Grade) -> dict[str, Any]:
    """`ours` is None where the verifier gave no verdict; `gold_read` is how it read the gold, `answer` what it found."""
    return {
        "line": answer.line,
        "task": answer.task,
        "id": answer.id,
        "sample_index": answer.sample_index,
        "gold": answer.gold,
        "gold_read": grade.gold,
        "answer": grade.answer,
        "ours": None if grade.error else grade.correct,
        "recorded": answer.recorded,
    }


def _graded(answers: Sequence[Answer], verifier: str, processes: int) -> list[Grade]:
    from stages.verifier.grade import grade_all

    items = [(answer.text, answer.finish_reason, answer.gold) for answer in answers]
    with _progress(len(items)) as on_grade:
        return grade_all(items, verifier, processes, on_grade)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Gives what to call after each answer, from any thread: a bar on a terminal, else now and then a line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total)
        return
    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)


class _Lines:
    """Progress as lines on standard error."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._last, self._lock = time.monotonic(), threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._done += 1
            if time.monotonic() - self._last >= LINE_SECONDS:
                self._last = time.monotonic()
                click.echo(f"grading: {self._done}/{self._total} answers", err=True)


def _text(report: dict[str, Any]) -> Iterator[str]:
    """Lines for a person: the counts, then every disagreement with what was read on both sides."""
    total, correct, errors = report["responses"], report["correct"], report["verifier_errors"]
    yield f"{total} answers, {correct} correct ({correct / total:.1%})"
    if errors:
        yield f"no verdict on {errors} of them, which count as wrong"
    if report["agree"] is None:
        yield "the file has no verdicts to compare with"
        return
    share = report["agree"] / (report["agree"] + report["disagree"])
    yield f"{report['agree']} agree with the verdicts of the file ({share:.2%}), {report['disagree']} do not"
    for row in report["disagreements"]:
        ours = "no verdict" if row["ours"] is None else _word(row["ours"])
        name = shortened(row["id"] if row["task"] is None else f"{row['task']}: {row['id']}")
        yield ""
        yield f"line {row['line']}, {name}, answer {row['sample_index']}: ours {ours}, the file's {_word(row['recorded'])}"
        yield f"    gold    {shortened(row['gold'])}    read as  {shortened(row['gold_read'] or 'nothing')}"
        yield f"    answer  {shortened(row['answer'] or 'none found')}"


def shortened(text: str) -> str:
    """On one line without control characters, the middle left out where it is long: the ends tell answers apart."""
    line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
    half = (MOST_SHOWN - 5) // 2
    return line if len(line) <= MOST_SHOWN else f"{line[:half]} ... {line[-half:]}"


def _word(correct: bool) -> str:
    return "right" if correct else "wrong"
