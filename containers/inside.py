"""The first process in a container under tini: runs the stage, and ends it when the launcher is gone.

The launcher holds the other end of standard input, and a lock on a file: end of file, or a lock that is free, means that
it has died, whatever killed it (with a dead daemon only the lock tells). Signals go on to the stage; the exit code is the
stage's, 128 + n if signal n ended it, and 137 if the memory limit killed any of its processes. Standard library only.
Run: `tini -- python3 -m containers.inside COMMAND...`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 10.0  # for the stage to save and end after the launcher has died
KILLED = 128 + signal.SIGKILL
LOCK = "TLDR_LAUNCHER_LOCK"  # names the file that the launcher holds locked
COUNTERS = (  # of cgroup v2 and v1: lines "oom_kill N"
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)


def main(command: list[str]) -> int:
    before = num_oom_kills()
    early: list[int] = []  # signals that came before there was a child
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    for came in early:
        child.send_signal(came)
    for wait in (wait_for_end_of_input, wait_for_lock):
        threading.Thread(target=end_after, args=(wait, child), daemon=True).start()
    code = child.wait()
    if code != 0 and num_oom_kills() > before:
        return KILLED  # also where the kernel chose a worker, and the stage itself ended with another code
    return code if code >= 0 else 128 - code


def wait_for_end_of_input() -> bool:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    return True


def wait_for_lock() -> bool:
    """False at once where locks do not reach into the container (a virtual machine between, some network disks)."""
    path = os.environ.get(LOCK)
    if path is None:
        return False
    try:
        file = os.open(path, os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(file, fcntl.LOCK_SH)
        return True
    except OSError:
        return False
    return False


def end_after(wait: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    if not wait():
        return
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()


def num_oom_kills() -> int:
    """Processes of this container that the kernel has killed for memory; 0 where that is not counted."""
    for path in COUNTERS:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
