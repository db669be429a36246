"""Progress of training: step, loss, speed, System-1 share, last control score, remaining time; on standard error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from stages.engines.progress import LINE_SECONDS, SilentStream, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

BAR_SECONDS = 0.1  # a terminal is drawn anew at most this often: steps of a small model take milliseconds
UNKNOWN = "-"


class TrainingProgress:
    """Context manager around the optimiser loop, for one process of them all (rank 0). `first_step` of the
    `total_steps` were done by an earlier run: they count as done, but not for speed or remaining time.

    Tokens per second are over the time of training alone, from entering to the last step without `paused`. The
    remaining time is this run's time per step so far, control evaluations included, times the steps left. What is not
    known yet is a dash. Nothing is raised where standard error is closed or broken: there is just nothing more to see.
    """

    def __init__(self, total_steps: int, first_step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_steps, self._first_step, self._clock = total_steps, first_step, clock
        self._status = Status(first_step, total_steps, None, None, None, None, None, None)
        self._display: Display | None = None
        self._begin = self._shown = self._paused_seconds = 0.0
        self._num_tokens = 0

    def resume(self, accuracy: float, mean_tokens: float, short_share: float) -> None:
        """Before entering, in a run that goes on: what the last control evaluation measured and decided."""
        status = self._status
        status.accuracy, status.mean_tokens, status.short_share = accuracy, mean_tokens, short_share

    def __enter__(self) -> Self:
        self._begin = self._shown = self._clock()
        self._display = _display()
        self._display.open(self._status)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close(keep=True)

    def step(self, step: int, loss: float, num_tokens: int, short_share: float) -> None:
        """After optimiser step number `step`: mean loss (nats per response token), tokens of prompts and responses that
        it trained on, and the System-1 share that its batch was drawn with."""
        now = self._clock()
        self._num_tokens += num_tokens
        seconds = now - self._begin - self._paused_seconds
        status = self._status
        status.step, status.loss, status.short_share = step, loss, short_share
        status.rate = self._num_tokens / seconds if seconds > 0.0 else None
        status.seconds_left = self._seconds_left(now)
        if now - self._shown >= self._opened.seconds or step == self._total_steps:
            self._shown = now
            self._opened.show(status)

    def control(self, step: int, accuracy: float, mean_tokens: float, next_share: float) -> None:
        """After the control evaluation at `step`: what it measured (tokens per answer), and the System-1 share of the
        steps to come."""
        self._shown = now = self._clock()
        status = self._status
        status.step, status.accuracy, status.mean_tokens, status.short_share = step, accuracy, mean_tokens, next_share
        status.seconds_left = self._seconds_left(now)
        self._opened.note(f"control at step {step}/{self._total_steps}: {status.control}, next {status.share}", status)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Give the terminal away, for a display of others or for time that is not training (a control evaluation)."""
        begin = self._clock()
        self._opened.close(keep=False)
        try:
            yield
        finally:
            self._paused_seconds += self._clock() - begin
            self._opened.open(self._status)

    @property
    def _opened(self) -> Display:
        assert self._display is not None, "TrainingProgress is used in a `with` block"
        return self._display

    def _seconds_left(self, now: float) -> float | None:
        num_done, seconds = self._status.step - self._first_step, now - self._begin
        return seconds / num_done * (self._total_steps - self._status.step) if num_done > 0 and seconds > 0.0 else None


@dataclass
class Status:
    """What is shown; None is not known yet. Rate in tokens per second, accuracy and mean_tokens of the last control
    evaluation."""

    step: int
    total_steps: int
    loss: float | None
    rate: float | None
    short_share: float | None
    accuracy: float | None
    mean_tokens: float | None
    seconds_left: float | None

    @property
    def share(self) -> str:
        return f"System-1 {_fraction(self.short_share, 2)}"

    @property
    def control(self) -> str:
        tokens = "" if self.mean_tokens is None else f", {self.mean_tokens:,.0f} tokens"
        return f"acc {_fraction(self.accuracy, 3)}{tokens}"

    def texts(self) -> dict[str, str]:
        return {
            "loss": f"loss {_number(self.loss, '.3g')}",
            "rate": f"{_number(self.rate, ',.0f')} tokens/s",
            "share": self.share,
            "control": self.control,
            "left": _duration(self.seconds_left),
        }


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def _fraction(value: float | None, num_digits: int) -> str:
    """A number from 0 to 1 without the zero that it mostly begins with."""
    text = _number(value, f".{num_digits}f")
    return text[1:] if text.startswith("0.") else text


def _duration(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Display(Protocol):
    """One way to show a status, at most every `seconds`. `note` shows a line that stays; `close` with `keep` leaves the
    last status in sight."""

    seconds: float

    def open(self, status: Status) -> None: ...

    def show(self, status: Status) -> None: ...

    def note(self, line: str, status: Status) -> None: ...

    def close(self, keep: bool) -> None: ...


def _display() -> Display:
    console = terminal()
    return Lines(SilentStream(sys.stderr)) if console is None else Bar(console)


class Lines:
    """Plain lines."""

    seconds = LINE_SECONDS

    def __init__(self, stream: SilentStream) -> None:
        self._stream = stream

    def open(self, status: Status) -> None:
        """Nothing is known that a line would say."""

    def show(self, status: Status) -> None:
        texts = status.texts()
        done = f"{status.step}/{status.total_steps} steps, {texts['loss']}, {texts['rate']}, {texts['share']}"
        self._stream.write(f"train: {done}, last control {texts['control']}, {texts['left']} left\n")

    def note(self, line: str, status: Status) -> None:
        self._stream.write(f"train: {line}, {status.texts()['left']} left\n")

    def close(self, keep: bool) -> None:
        """Lines stay."""


class Bar:
    """One bar of rich, which is erased when it is closed without `keep`."""

    seconds = BAR_SECONDS

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None

    def open(self, status: Status) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        fields = [TextColumn(f"{{task.fields[texts][{name}]}}", markup=False) for name in status.texts()]
        count = MofNCompleteColumn(table_column=Column(no_wrap=True))  # the bar gives way where a terminal is narrow
        self._progress = Progress(
            *(TextColumn("train"), BarColumn(), count, *fields),
            console=self._console,
            auto_refresh=False,  # a thread would write while others use the terminal, and hold locks while they fork
            redirect_stdout=False,  # standard output may be a file
        )
        self._progress.add_task("", total=status.total_steps, completed=status.step, texts=status.texts())
        self._progress.start()

    def show(self, status: Status) -> None:
        if self._progress is not None:
            (task,) = self._progress.task_ids
            self._progress.update(task, completed=status.step, refresh=True, texts=status.texts())

    def note(self, line: str, status: Status) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.show(status)

    def close(self, keep: bool) -> None:
        if self._progress is not None:
            self._progress.live.transient = not keep
            self._progress.stop()
            self._progress = None
