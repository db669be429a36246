"""How `tldr check` ends: what it found goes to the terminal and to the files that were asked for, then the exit code.

Writes those files and, under GitHub Actions, annotations and the step summary. Exit code 1 is kept for a regression: nothing
that goes wrong here or before may read as one, and nothing that goes wrong after the decision may hide one.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from stages._errors import EXIT_BUG, EXIT_CTRL_C, EXIT_STAGE_FAILED, TldrError
from stages.cli._exits import describe

EXIT_REGRESSION = 1
EXIT_INCONCLUSIVE = 3
EXIT_UNUSABLE = 4
STDOUT = "-"


class Unusable(TldrError):
    """Something to compare is missing, cannot be read, or must not be compared."""

    exit_code = EXIT_UNUSABLE


@dataclass(frozen=True)
class Sinks:
    """Files that the result is written to; `json` may be `-`, then JSON takes the place of the table."""

    junit: str | None
    json: str | None
    markdown: str | None


def conclude(result: dict[str, Any], strict: bool, sinks: Sinks) -> None:
    """Show and write a decision, and leave with its exit code."""
    code = {"FAIL": EXIT_REGRESSION, "INCONCLUSIVE": EXIT_INCONCLUSIVE if strict else 0, "PASS": 0}[result["verdict"]]
    problems = _delivered({**result, "strict": strict, "exit_code": code}, sinks)
    if problems and code != EXIT_REGRESSION:
        code = max(problem for problem, _ in problems)
    _say(sentence for _, sentence in problems)
    raise click.exceptions.Exit(code)


class Ending:
    """Context manager round the command: an error becomes its exit code, a sentence, and an ERROR in the files."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, click.exceptions.Exit | click.UsageError):
            return
        code, sentence = _described(error)
        if os.environ.get("TLDR_DEBUG") == "1":
            import traceback

            traceback.print_exception(error)
        _say([sentence])
        if code != EXIT_CTRL_C:
            result = {"schema_version": 1, "verdict": "ERROR", "exit_code": code, "message": sentence, "benchmarks": []}
            _say(problem for _, problem in _delivered(result, self._sinks))
        raise click.exceptions.Exit(code)


def _described(error: BaseException) -> tuple[int, str]:
    """As for every command, but what another command calls a failed stage is no regression."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_CTRL_C, "Interrupted; nothing was decided."
    if isinstance(error, MemoryError):
        return EXIT_BUG, "Out of memory, nothing was decided; run again where there is more of it."
    if isinstance(error, PermissionError) and error.filename:
        return EXIT_UNUSABLE, f"No permission to use {error.filename}; change its owner or mode and run again."
    code, sentence = describe(error)
    return (EXIT_BUG if code == EXIT_STAGE_FAILED else code), sentence


def _delivered(result: dict[str, Any], sinks: Sinks) -> list[tuple[int, str]]:
    """An exit code and a sentence for each output that failed, or for all of them: then too the code is this command's."""
    with _Attempt() as attempt:
        return _deliver(result, sinks)
    assert attempt.error is not None
    code, sentence = _described(attempt.error)
    return [(code, f"The outputs could not be written. {sentence}")]


def _deliver(result: dict[str, Any], sinks: Sinks) -> list[tuple[int, str]]:
    """Try every output."""
    from stages.cli import _gate_output as output

    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if on_github else None

    def as_json() -> str:
        return json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    attempts: list[tuple[str, Callable[[], None]]] = []
    for path, made in ((sinks.junit, output.junit), (sinks.markdown, output.markdown)):
        if path is not None:
            attempts.append((path, lambda path=path, made=made: _write(path, made(result))))  # type: ignore[misc]
    if sinks.json is not None and sinks.json != STDOUT:
        attempts.append((sinks.json, lambda: _write(str(sinks.json), as_json())))
    if summary:
        attempts.append((summary, lambda: _append(summary, output.markdown(result))))
    if sinks.json == STDOUT:
        attempts.append(("standard output", lambda: _print(as_json())))
    elif result["verdict"] != "ERROR":
        attempts.append(("standard output", lambda: _show(result)))
    problems = [problem for what, write in attempts if (problem := _attempt(what, write)) is not None]
    if on_github:
        _say(output.github_commands(result), prefix="", err=sinks.json == STDOUT)
    return problems


class _Attempt:
    """Context manager round one output: keeps what went wrong instead of ending the command."""

    error: Exception | None = None

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def _attempt(what: str, write: Callable[[], None]) -> tuple[int, str] | None:
    with _Attempt() as attempt:
        write()
    error = attempt.error
    if error is None:
        return None
    if what == "standard output":
        _silence()
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, such as `head`
            return None
    if isinstance(error, OSError):
        return EXIT_UNUSABLE, f"{what} could not be written ({error.strerror or error}); choose another place for it."
    code, sentence = _described(error)
    return code, f"{what} could not be written. {sentence}"


def _write(path: str, text: str) -> None:
    """Whole or not at all; a pipe or a device is written to, not replaced."""
    from stages._io import write_text

    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
    else:
        write_text(target, text)


def _append(path: str, text: str) -> None:
    with Path(path).open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console

    from stages.cli._gate_output import render

    _take_any_sign()
    console = Console(highlight=False)
    with console.capture() as text:  # rich itself would leave with code 1 where the reader has gone
        render(result, console=console)
    _print(text.get())


def _print(text: str) -> None:
    if sys.stdout is None:  # closed before the start, as by a shell's >&-
        return
    _take_any_sign()
    sys.stdout.write(text)
    sys.stdout.flush()


def _take_any_sign() -> None:
    """A terminal that lacks a letter of a name shows its code instead of ending the command."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _silence() -> None:
    """What is left in the buffer of a broken standard output would change the exit code when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(sentences: Iterable[str], prefix: str = "Error: ", err: bool = True) -> None:
    """One line each; a closed standard error must not change how the command ends."""
    for sentence in sentences:
        with _Attempt() as attempt:
            click.echo(f"{prefix}{sentence}", err=err)
        if attempt.error is not None and not err:
            _silence()
