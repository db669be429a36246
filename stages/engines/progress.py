"""Progress of a generation run: answers done, useful tokens per second, remaining time; on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from stages.engines.base import Response

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 10.0  # where standard error is no terminal, one line at most this often


def track(responses: Iterable[Response], total: int, title: str) -> Iterator[Response]:
    """Pass `responses` on while showing how far they are; `total` is the number of answers to come. Nothing is raised
    where standard error is closed or broken: there is just nothing to see any more."""
    if total == 0:
        return iter(responses)
    console = terminal()
    return _lines(responses, total, title) if console is None else _bar(console, responses, total, title)


def terminal() -> Console | None:
    """Standard error, if something that moves can be shown there. Also in a container whose output goes to a terminal: its
    launcher sets TTY_COMPATIBLE, which rich reads."""
    from rich.console import Console

    if sys.stderr is None:  # rich, which redirects it, could not put it back
        return None
    console = Console(file=cast("TextIO", SilentStream(sys.stderr)))
    return console if console.is_interactive else None


def _bar(console: Console, responses: Iterable[Response], total: int, title: str) -> Iterator[Response]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, redirect_stdout=False) as progress:
        task = progress.add_task("", total=total, rate="")
        start, tokens = time.monotonic(), 0
        for response in responses:
            tokens += response.num_tokens
            rate = tokens / max(time.monotonic() - start, 1e-6)
            progress.update(task, advance=1, rate=f"{rate:,.0f} tokens/s")
            yield response


def _lines(responses: Iterable[Response], total: int, title: str) -> Iterator[Response]:
    stream = SilentStream(sys.stderr)
    start = last = time.monotonic()
    tokens = done = 0
    for response in responses:
        tokens, done = tokens + response.num_tokens, done + 1
        now = time.monotonic()
        if now - last >= LINE_SECONDS or done == total:
            last, rate = now, tokens / max(now - start, 1e-6)
            left = (now - start) / done * (total - done)
            stream.write(f"{title}: {done}/{total} answers, {rate:,.0f} tokens/s, {left:.0f} s left\n")
        yield response


class SilentStream:
    """Standard error that is given up at its first failure, so that a lost terminal or reader ends no run."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: the process was started without standard error
        self.encoding = getattr(stream, "encoding", None)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # a broken pipe or a terminal that is gone; a closed file
                if sys.stderr is self._stream:  # else the interpreter fails on it once more as it ends, with code 120
                    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open to the end of the process
                self._stream = None
        return len(text)

    def flush(self) -> None:
        """Nothing is left to flush after a write."""
