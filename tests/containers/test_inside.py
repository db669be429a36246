"""The watchdog of a container as a real process (exit codes, signals, a launcher that dies), and the lines of its output."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from containers import streams
from containers.streams import LineWriter
from tests.paths import ROOT

WATCHDOG = (sys.executable, "-m", "containers.inside")
QUICK = "import containers.inside as i, sys; i.GRACE_SECONDS = 0.3; sys.exit(i.main(sys.argv[1:]))"
SECONDS = 10

# The toys say when they are ready, and which signals they got.
SLEEPER = "print('ready', flush=True); import time; time.sleep(60)"
LISTENER = """
import signal, sys, time
def end(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(7)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
print("ready", flush=True)
time.sleep(60)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda number, frame: print("SIGTERM", flush=True))
print("ready", os.getpid(), flush=True)
while True:
    time.sleep(60)
"""


@contextmanager
def watched(*command: str, driver: tuple[str, ...] = WATCHDOG, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The watchdog over `command`, its standard input held open; both are killed at the end, at the latest in SECONDS."""
    with subprocess.Popen(
        [*driver, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        end = threading.Timer(SECONDS, kill_all, (process,))
        end.start()
        try:
            yield process
        finally:
            end.cancel()
            kill_all(process)


def kill_all(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# Exit codes


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
    ],
)
def test_exit_code_is_that_of_the_command(program: str, code: int) -> None:
    with watched(sys.executable, "-c", program) as process:
        assert process.wait(SECONDS) == code


@pytest.mark.parametrize(("code", "kills", "expected"), [(1, 1, 137), (1, 0, 1), (0, 1, 0)])
def test_failure_in_which_the_kernel_killed_for_memory_is_137(
    tmp_path: Path, code: int, kills: int, expected: int
) -> None:
    """Here the counter of the container is a toy file; one kill before the command began is not the command's."""
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 9\noom_kill 1\n")
    driver = (
        "import sys, pathlib, containers.inside as i\n"
        f"i.COUNTERS = (pathlib.Path({str(tmp_path / 'missing')!r}), pathlib.Path({str(counter)!r}))\n"
        "sys.exit(i.main(sys.argv[1:]))"
    )
    script = f"echo 'oom_kill {1 + kills}' > {counter}; exit {code}"
    with watched("sh", "-c", script, driver=(sys.executable, "-c", driver)) as process:
        assert process.wait(SECONDS) == expected


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_go_on_to_the_command(number: signal.Signals) -> None:
    with watched(sys.executable, "-c", LISTENER) as process:
        assert line(process) == "ready"
        process.send_signal(number)
        assert line(process) == number.name
        assert process.wait(SECONDS) == 7


# The launcher is gone


def test_command_runs_while_the_launcher_lives(tmp_path: Path) -> None:
    """Also when something is written to the standard input, which is not the command's."""
    program = f"import sys, time; time.sleep(0.5); print(repr(sys.stdin.read())); open({str(tmp_path / 'done')!r}, 'w')"
    with watched(sys.executable, "-c", program) as process:
        assert process.stdin is not None
        process.stdin.write("typed\n")
        process.stdin.flush()
        assert line(process) == "''"
        assert process.wait(SECONDS) == 0
    assert (tmp_path / "done").exists()


def test_end_of_input_asks_the_command_to_end() -> None:
    with watched(sys.executable, "-c", LISTENER) as process:
        assert line(process) == "ready"
        end_input(process)
        assert line(process) == "SIGTERM"
        assert process.wait(SECONDS) == 7


def test_command_that_will_not_end_is_killed_after_the_grace() -> None:
    with watched(sys.executable, "-c", DEAF, driver=(sys.executable, "-c", QUICK)) as process:
        ready, pid = line(process).split()
        end_input(process)
        assert (ready, line(process)) == ("ready", "SIGTERM")
        assert not has_ended(int(pid))
        assert process.wait(SECONDS) == 137
        assert has_ended(int(pid))


LAUNCHER = """
import os, subprocess, sys
from pathlib import Path
from containers.run import launcher_lock
with launcher_lock(Path(sys.argv[1])) as variables:
    print(variables["TLDR_LAUNCHER_LOCK"], flush=True)
    sys.stdin.read()
"""


def test_lock_that_the_launcher_lets_go_asks_the_command_to_end(tmp_path: Path) -> None:
    """The standard input stays open, as it does when the daemon has died together with the launcher."""
    lock = tmp_path / "launcher.lock"
    with watched(str(lock), driver=(sys.executable, "-c", LAUNCHER)) as launcher:
        assert line(launcher) == str(lock)
        with watched(sys.executable, "-c", LISTENER, TLDR_LAUNCHER_LOCK=str(lock)) as process:
            assert line(process) == "ready"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            launcher.kill()
            assert line(process) == "SIGTERM"
            assert process.wait(SECONDS) == 7


@pytest.mark.parametrize("is_there", [True, False])
def test_lock_that_nobody_holds_ends_nothing(tmp_path: Path, is_there: bool) -> None:
    """As where locks do not reach into the container."""
    lock = tmp_path / "launcher.lock"
    if is_there:
        lock.touch()
    with watched(sys.executable, "-c", SLEEPER, TLDR_LAUNCHER_LOCK=str(lock)) as process:
        assert line(process) == "ready"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        end_input(process)
        assert process.wait(SECONDS) == 143


# Its output


class Stream(io.BytesIO):
    """Remembers how it was written to, piece by piece, as far as it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def flush(self) -> None:
        self.pieces.append(self.getvalue())
        self.seek(0)
        self.truncate()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("fragments", "pieces"),
    [
        ([b"one\ntwo\n"], [b"one\ntwo\n"]),
        ([b"o", b"ne\ntw", b"o\n"], [b"one\n", b"two\n"]),
        ([b" 10%\r", b" 20", b"%\r 3", b"0%\r\n"], [b" 10%\r", b" 20%\r", b" 30%\r\n"]),
        ([b"", b"caf\xc3", b"\xa9\n"], [b"caf\xc3\xa9\n"]),
    ],
)
def test_fragments_become_whole_lines(
    monkeypatch: pytest.MonkeyPatch, fragments: list[bytes], pieces: list[bytes], terminal: bool
) -> None:
    monkeypatch.setattr(streams, "QUIET_SECONDS", 60)
    stream = Stream()
    writer = LineWriter(stream, terminal=terminal)
    for fragment in fragments:
        writer.write(fragment)
    assert stream.pieces == pieces
    writer.flush()
    assert stream.pieces == pieces


def test_what_is_left_at_the_end_is_written() -> None:
    stream = Stream()
    writer = LineWriter(stream, terminal=False)
    writer.write(b"done\nno end")
    assert stream.pieces == [b"done\n"]
    writer.flush()
    assert stream.pieces == [b"done\n", b"no end"]


def test_a_terminal_shows_a_prompt_after_a_moment() -> None:
    stream = Stream()
    writer = LineWriter(stream, terminal=True)
    writer.write(b"continue? ")
    assert stream.pieces == []
    wait_for(lambda: stream.pieces == [b"continue? "])
    writer.write(b"yes\n")
    assert stream.pieces == [b"continue? ", b"yes\n"]


def test_a_file_waits_for_the_whole_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "QUIET_SECONDS", 0.01)
    stream = Stream()
    writer = LineWriter(stream, terminal=False)
    writer.write(b"half")
    time.sleep(0.1)
    assert stream.pieces == []
    writer.write(b" a line\n")
    assert stream.pieces == [b"half a line\n"]
