"""Child processes of several threads, which end together: each in a session of its own, out of reach of the terminal.

Ctrl-C reaches this process only. It passes SIGTERM to every process of every child, so that a stage stops cleanly; whoever
has not ended `GRACE` seconds later is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE = 10.0
POLL = 0.05


class Stopped(Exception):
    """A child was not started, because the children were stopped before."""


class Children:
    """`lock` is a file descriptor that every child holds open: a lock on it lives as long as any of them."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._guard = threading.Lock()
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
        """Exit code of the command, run in `folder`; all it prints goes to `log`. Raises Stopped after `stop`."""
        with log.open("wb") as stream:
            child = self._start(command, folder, environment, stream.fileno())
            code = child.wait()
        with self._guard:
            self._alive.discard(child)
        if code != 0:  # DVC may have ended before its stage
            _end_group(child.pid)
        return code

    def _start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], output: int
    ) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._stopped:
                raise Stopped
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
            self._alive.add(child)
            return child

    def stop(self) -> None:
        """Ask every child to end, with all its processes, and start none any more; their `run` returns when they have."""
        with self._guard:
            self._stopped = True
            for child in self._alive:
                _signal(child.pid, signal.SIGTERM)


def _end_group(group: int) -> None:
    """Returns when no process of the group is left, or those that are have been killed."""
    _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while _signal(group, 0) and time.monotonic() < deadline:
        time.sleep(POLL)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Whether there was anyone to signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
