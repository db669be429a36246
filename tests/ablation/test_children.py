"""Children end with all their processes, and none is started after the end."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from stages.cli._ablation_children import Children, Stopped


@pytest.fixture
def children():
    read, write = os.pipe()
    yield Children(write)
    os.close(read)
    os.close(write)


@pytest.fixture
def pipe(tmp_path):
    """A named pipe and its reading end, which is at its end as long as no process has the other one open."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield tmp_path / "pipe", reader
    os.close(reader)


def test_what_a_child_prints_and_its_exit_code_come_back(children, tmp_path):
    code = children.run(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path, os.environ, tmp_path / "log")
    assert code == 3 and (tmp_path / "log").read_text() == "out\nerr\n"


def test_what_a_failed_child_leaves_behind_is_ended(children, tmp_path, pipe):
    """As DVC leaves its stage behind when it is terminated."""
    path, reader = pipe
    command = ["sh", "-c", f"exec 3> {path}; sleep 300 & exit 3"]
    assert children.run(command, tmp_path, os.environ, tmp_path / "log") == 3
    assert os.read(reader, 1) == b"", "a process that has the pipe open would raise BlockingIOError"


def test_a_stop_reaches_the_processes_of_a_child_and_starts_no_other(children, tmp_path, pipe):
    path, reader = pipe
    codes = []

    def run():
        command = ["sh", "-c", f"exec 3> {path}; sleep 300 & echo ready >&3; wait"]
        codes.append(children.run(command, tmp_path, os.environ, tmp_path / "log"))

    thread = threading.Thread(target=run)
    thread.start()
    os.set_blocking(reader, True)
    with path.open() as ready:
        assert ready.readline() == "ready\n"
    children.stop()
    thread.join(60)
    assert codes == [-15]
    assert os.read(reader, 1) == b""
    with pytest.raises(Stopped):
        children.run(["true"], tmp_path, os.environ, tmp_path / "log")


def test_a_child_holds_the_lock_of_its_parent_open(tmp_path):
    read, write = os.pipe()
    command = ["sh", "-c", f"echo held > /proc/self/fd/{write}"]
    assert Children(write).run(command, tmp_path, os.environ, tmp_path / "log") == 0
    assert os.read(read, 5) == b"held\n"
    assert subprocess.run(command, capture_output=True).returncode != 0, "other children do not"
    os.close(read)
    os.close(write)
