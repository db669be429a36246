"""Progress of a generation run: answers done, useful tokens per second, remaining time; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

from stages.engines.base import Response

LINE_SECONDS = 10.0  # where standard error is no terminal, one line at most this often


def track(responses: Iterable[Response], total: int, title: str) -> Iterator[Response]:
    """Pass `responses` on while showing how far they are; `total` is the number of answers to come."""
    if total == 0:
        return iter(responses)
    return _bar(responses, total, title) if _on_terminal() else _lines(responses, total, title)


def _on_terminal() -> bool:
    """Also in a container whose output goes to a terminal: its launcher sets TTY_COMPATIBLE, which rich reads."""
    from rich.console import Console

    return Console(stderr=True).is_terminal


def _bar(responses: Iterable[Response], total: int, title: str) -> Iterator[Response]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, rate="")
        start, tokens = time.monotonic(), 0
        for response in responses:
            tokens += response.num_tokens
            rate = tokens / max(time.monotonic() - start, 1e-6)
            progress.update(task, advance=1, rate=f"{rate:,.0f} tokens/s")
            yield response


def _lines(responses: Iterable[Response], total: int, title: str) -> Iterator[Response]:
    start = last = time.monotonic()
    tokens = done = 0
    for response in responses:
        tokens, done = tokens + response.num_tokens, done + 1
        now = time.monotonic()
        if now - last >= LINE_SECONDS or done == total:
            last, rate = now, tokens / max(now - start, 1e-6)
            left = (now - start) / done * (total - done)
            print(f"{title}: {done}/{total} answers, {rate:,.0f} tokens/s, {left:.0f} s left", file=sys.stderr)
        yield response
