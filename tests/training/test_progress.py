"""What is shown of a training run: plain lines, the bar of a terminal, and nothing at all where standard error is gone."""

from __future__ import annotations

import io
import math
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from stages.engines.base import Response
from stages.engines.progress import LINE_SECONDS, track
from stages.training.progress import BAR_SECONDS, TrainingProgress


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(no_terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TTY_COMPATIBLE", "1"), ("TERM", "xterm"), ("COLUMNS", "120"), ("LINES", "40")):
        monkeypatch.setenv(name, value)


class Written:
    """All that was written so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._out, self._err = capsys, "", ""

    def _read(self) -> None:
        out, err = self._capsys.readouterr()
        self._out, self._err = self._out + out, self._err + err

    @property
    def out(self) -> str:
        self._read()
        return self._out

    @property
    def err(self) -> str:
        self._read()
        return self._err


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def screen(written: str) -> list[str]:
    """The rows of a terminal after `written`, of those controls that rich uses; blanks at their ends are cut off."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part.endswith("A"):
            row -= int(part[2:-1])
        elif not part.startswith("\x1b"):
            rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in rows if line.strip()]


def bar_texts(row: str) -> str:
    """A row of the bar without the bar itself."""
    return re.sub(r"[━╸╺ ]+", " ", row).strip()


def answers(number: int) -> Iterator[Response]:
    return (Response(str(index), 0, 0, (1, 2), "stop") for index in range(number))


def advance(progress: TrainingProgress, clock: Clock, first: int, last: int, seconds: float) -> None:
    """Steps `first` to `last` of 500 tokens, each of which takes `seconds`."""
    for step in range(first, last + 1):
        clock.now += seconds
        progress.step(step, 0.5 / step, 500, 0.5)


def test_lines_come_seldom_and_at_the_last_step(clock: Clock, written: Written) -> None:
    with TrainingProgress(50, 0, clock) as progress:
        advance(progress, clock, 1, 50, LINE_SECONDS / 20)
    assert written.err.splitlines() == [
        "train: 20/50 steps, loss 0.025, 1,000 tokens/s, System-1 .50, last control acc -, 0:00:15 left",
        "train: 40/50 steps, loss 0.0125, 1,000 tokens/s, System-1 .50, last control acc -, 0:00:05 left",
        "train: 50/50 steps, loss 0.01, 1,000 tokens/s, System-1 .50, last control acc -, 0:00:00 left",
    ]


def test_time_of_control_evaluations_counts_for_the_remaining_time_only(clock: Clock, written: Written) -> None:
    """Of 40 steps, 10 take a second each and the evaluation after them 90: 10 s a step, hence 300 s for the other 30."""
    with TrainingProgress(40, 0, clock) as progress:
        advance(progress, clock, 1, 10, 1.0)
        with progress.paused():
            clock.now += 90.0
        progress.control(10, 0.9871, 71.4, 0.625)
        advance(progress, clock, 11, 20, 1.0)
    assert written.err.splitlines() == [
        "train: 10/40 steps, loss 0.05, 500 tokens/s, System-1 .50, last control acc -, 0:00:30 left",
        "train: control at step 10/40: acc .987, 71 tokens, next System-1 .62, 0:05:00 left",
        "train: 20/40 steps, loss 0.025, 500 tokens/s, System-1 .50, last control acc .987, 71 tokens, 0:01:50 left",
    ]


def test_steps_of_an_earlier_run_are_done_but_tell_nothing_of_the_speed(clock: Clock, written: Written) -> None:
    """Also where that run was killed in a control evaluation, which comes first then: nothing is known before a step."""
    with TrainingProgress(1100, 1000, clock) as progress:
        with progress.paused():
            clock.now += 50.0
        progress.control(1000, 1.0, 12345.6, 0.0)
        advance(progress, clock, 1001, 1001, LINE_SECONDS)
    first, second = written.err.splitlines()
    assert first == "train: control at step 1000/1100: acc 1.000, 12,346 tokens, next System-1 .00, - left"
    assert " 1001/1100 " in second and " 50 tokens/s" in second and " 1:39:00 left" in second


def test_a_run_that_goes_on_shows_the_last_control_evaluation(clock: Clock, written: Written) -> None:
    progress = TrainingProgress(50, 40, clock)
    progress.resume(0.985, 79.4, 0.25)
    with progress:
        advance(progress, clock, 41, 50, 1.0)
    assert "acc .985, 79 tokens" in written.err


def test_no_number_is_made_up_where_no_time_has_passed(clock: Clock, written: Written) -> None:
    with TrainingProgress(1, 0, clock) as progress:
        progress.step(1, 0.25, 500, 0.5)
    line = "train: 1/1 steps, loss 0.25, - tokens/s, System-1 .50, last control acc -, - left\n"
    assert written.err == line


@pytest.mark.parametrize(("loss", "text"), [(math.nan, "nan"), (math.inf, "inf"), (1e300, "1e+300"), (12.345, "12.3")])
def test_numbers_that_went_wrong_are_shown(clock: Clock, written: Written, loss: float, text: str) -> None:
    with TrainingProgress(1, 0, clock) as progress:
        progress.step(1, loss, 500, math.nan)
        progress.control(1, math.nan, math.inf, math.nan)
    step, control = written.err.splitlines()
    assert f" loss {text}, " in step and " System-1 nan, " in step
    assert "acc nan, inf tokens, next System-1 nan" in control


def test_the_bar_of_a_terminal(clock: Clock, written: Written, terminal: None) -> None:
    with TrainingProgress(160, 16, clock) as progress:
        (row,) = screen(written.err)
        assert bar_texts(row) == "train 16/160 loss - - tokens/s System-1 - acc - -"
        advance(progress, clock, 17, 32, 1.0)
        (row,) = screen(written.err)
        assert bar_texts(row) == "train 32/160 loss 0.0156 500 tokens/s System-1 .50 acc - 0:02:08"
        assert "━" in row
        progress.control(32, 0.987, 71.0, 0.62)
        line, row = screen(written.err)
        assert line == "control at step 32/160: acc .987, 71 tokens, next System-1 .62"
        assert bar_texts(row) == "train 32/160 loss 0.0156 500 tokens/s System-1 .62 acc .987, 71 tokens 0:02:08"
    assert screen(written.err) == [line, row]
    assert written.err.endswith("\x1b[?25h"), "the cursor stays hidden"


@pytest.mark.parametrize("columns", ["60", "80", "100"])
def test_the_bar_keeps_to_one_row(
    clock: Clock, written: Written, terminal: None, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """A second row would be left behind at every drawing; 80 columns have room for all but the bar itself."""
    monkeypatch.setenv("COLUMNS", columns)
    with TrainingProgress(160, 0, clock) as progress:
        advance(progress, clock, 1, 16, 1.0)
        progress.control(16, 0.987, 71.0, 0.62)
    _, row = screen(written.err)
    assert len(row) <= int(columns)
    assert ("…" in row) == (columns == "60")


def test_the_bar_is_drawn_at_a_bearable_rate(clock: Clock, written: Written, terminal: None) -> None:
    with TrainingProgress(1000, 0, clock) as progress:
        before = written.err.count("\r")
        advance(progress, clock, 1, 100, BAR_SECONDS / 9.5)  # each tenth step
        assert written.err.count("\r") == before + 10


def test_a_control_evaluation_has_the_terminal_to_itself(clock: Clock, written: Written, terminal: None) -> None:
    """Neither display writes into the other, and no bar that is out of date stays."""
    stderr = sys.stderr
    with TrainingProgress(40, 0, clock) as progress:
        for step in (20, 40):
            advance(progress, clock, step - 19, step, 1.0)
            with progress.paused():
                assert sys.stderr is stderr
                assert not any("train" in row for row in screen(written.err))
                begin = len(written.err)
                for _ in track(answers(4), 4, f"control step-{step}"):
                    assert not any("train" in row for row in screen(written.err))
                assert "train" not in written.err[begin:]
            progress.control(step, 0.9, 70.0, 0.6)
    rows = screen(written.err)
    assert [bar_texts(row).split(" tokens/s")[0].rsplit(" ", 1)[0] for row in (rows[0], rows[2])] == [
        "control step-20 4/4",
        "control step-40 4/4",
    ]
    assert rows[1].startswith("control at step 20/40: ") and rows[3].startswith("control at step 40/40: ")
    assert [bar_texts(row)[:11] for row in rows[4:]] == ["train 40/40"]


def test_what_others_print_stays_above_the_bar(clock: Clock, written: Written, terminal: None) -> None:
    """On standard error; standard output, which may be a file, is left alone."""
    with TrainingProgress(4, 0, clock) as progress:
        print("a warning", file=sys.stderr)
        print("a result")
        advance(progress, clock, 1, 2, 1.0)
    warning, row = screen(written.err)
    assert warning == "a warning" and row.startswith("train ")
    assert written.out == "a result\n"


@pytest.mark.parametrize("paused", [False, True])
def test_a_failure_leaves_the_terminal_in_order(clock: Clock, written: Written, terminal: None, paused: bool) -> None:
    stderr = sys.stderr
    with pytest.raises(RuntimeError, match="out of memory"), TrainingProgress(4, 0, clock) as progress:
        advance(progress, clock, 1, 2, 1.0)
        if paused:
            with progress.paused():
                raise RuntimeError("out of memory")
        raise RuntimeError("out of memory")
    assert sys.stderr is stderr
    (row,) = screen(written.err)
    assert bar_texts(row).startswith("train 2/4 ")
    assert written.err.endswith("\x1b[?25h")


def test_a_terminal_without_cursor_control_gets_lines(
    clock: Clock, written: Written, terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with TrainingProgress(2, 0, clock) as progress:
        advance(progress, clock, 1, 2, 1.0)
    assert written.err.startswith("train: 2/2 steps, ") and "\x1b" not in written.err


def run_whole(clock: Clock, lose: Callable[[], None]) -> None:
    """A training run that loses standard error by `lose` after two of its four steps."""
    with TrainingProgress(4, 0, clock) as progress:
        advance(progress, clock, 1, 2, LINE_SECONDS)
        lose()
        advance(progress, clock, 3, 4, LINE_SECONDS)
        with progress.paused():
            clock.now += 1.0
        progress.control(4, 0.9, 70.0, 0.6)


@pytest.mark.parametrize("kind", ["lines", "bar"])
@pytest.mark.parametrize("lost", ["stream closed", "descriptor closed", "reader gone"])
def test_training_goes_on_when_standard_error_breaks(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str, lost: str
) -> None:
    if kind == "bar":
        request.getfixturevalue("terminal")
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    seen = []

    def lose() -> None:
        seen.append(os.read(reader, 100_000).decode())
        if lost == "stream closed":
            stream.close()
        else:
            os.close(writer if lost == "descriptor closed" else reader)

    run_whole(clock, lose)
    assert "2/4" in seen[0]
    assert sys.stderr is stream or sys.stderr.name == os.devnull  # not what rich had put there
    with suppress(OSError):
        stream.close()
    with suppress(OSError):
        os.close(reader)


@pytest.mark.parametrize("kind", ["lines", "bar"])
@pytest.mark.parametrize("lost", ["never given", "closed"])
def test_training_runs_where_there_is_no_standard_error(
    clock: Clock,
    written: Written,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kind: str,
    lost: str,
) -> None:
    """It does not fall back on standard output, as `print` does."""
    if kind == "bar":
        request.getfixturevalue("terminal")
    stream = None
    if lost == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    run_whole(clock, lambda: None)
    assert sys.stderr is stream or sys.stderr.name == os.devnull  # not what rich had put there
    assert written.out == ""


def read_until(terminal: int, text: str) -> str:
    """What the terminal was sent, `text` included: the kernel hands over what was written in parts, some of them later."""
    seen = b""
    while text.encode() not in seen:
        assert select.select([terminal], [], [], 60)[0], f"{text} never arrived after {seen!r}"
        seen += os.read(terminal, 100_000)
    return seen.decode(errors="replace")


def test_training_outlives_its_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one, found without any help from the environment."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    seen = []

    def lose() -> None:
        seen.append(read_until(master, "2/4"))
        os.close(master)

    run_whole(clock, lose)
    assert "\x1b[?25l" in seen[0]
    assert sys.stderr is stream or sys.stderr.name == os.devnull  # not what rich had put there
    with suppress(OSError):
        stream.close()


class FailsOnce(io.StringIO):
    """A full disk that has room again."""

    failed = False

    def write(self, text: str) -> int:
        if not self.failed:
            self.failed = True
            raise OSError("no space left on device")
        return super().write(text)


def test_a_stream_that_failed_is_not_tried_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FailsOnce()
    monkeypatch.setattr(sys, "stderr", stream)
    run_whole(clock, lambda: None)
    assert stream.failed and stream.getvalue() == ""
