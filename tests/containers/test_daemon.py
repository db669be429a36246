"""A Docker daemon of one's own that is killed while a container runs: one sentence, and nothing stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers.conftest import BASE, wait_until
from tests.paths import ROOT

pytestmark = pytest.mark.containers

# Runs one container of the base image, which says that it lives and sleeps.
LAUNCHER = """
import os, sys
from pathlib import Path
from containers import docker_engine
from containers.images import Image
from containers.run import run
from containers.sandbox import Limits, Mount, Sandbox
from containers.strays import labels
from stages.cli._exits import ExitCodes

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
docker_engine.check = lambda image, gpu: None  # the base image carries no label
program = f"import time; open('{folder}/ready', 'w').write('x'); time.sleep(100)"
sandbox = Sandbox(
    Image("cpu", sys.argv[3], "", ""), ("python3", "-c", program), root, (Mount(root), Mount(folder, writable=True)),
    {}, (os.getuid(), os.getgid()), (), Limits(1 << 20, None, 100), labels=labels(folder, "toy"),
)
import click
try:
    with ExitCodes():
        sys.exit(run(sandbox, root, "docker", folder))
except click.exceptions.Exit as end:
    sys.exit(end.exit_code)
"""


class Daemon:
    """`dockerd` with its data, sockets and process file in one folder, and a network of its own: it takes the bridge of
    the other daemon down."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder / 'd.sock'}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = [f"--data-root={self._folder / 'data'}", f"--exec-root={self._folder / 'x'}", f"--host={self.host}"]
        options += [f"--pidfile={self._folder / 'pid'}", "--bridge=none", "--iptables=false", "--storage-driver=vfs"]
        log = (self._folder / "log").open("ab")
        self.process = subprocess.Popen(
            ["unshare", "--net", "dockerd", *options], stdout=log, stderr=log, start_new_session=True
        )
        wait_until(lambda: self.docker("info").returncode == 0 or self.process.poll() is not None, "dockerd")
        assert self.process.poll() is None, (self._folder / "log").read_text()[-2000:]

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", f"--host={self.host}", *arguments], capture_output=True, text=True)

    def kill(self) -> None:
        """The daemon, and with it its containerd; the containers live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # an init that does not reap leaves a zombie of this number, which the next daemon takes for a living containerd
        (self._folder / "x" / "containerd" / "containerd.pid").unlink()

    def stop(self) -> None:
        """End whatever runs, and take away what is mounted in the folder."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        subprocess.run(["pkill", "-f", str(self._folder)], check=False)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(str(self._folder)):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture
def daemon(docker_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if os.getuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a second dockerd needs root and the program dockerd")
    folder = Path("/var/tmp") / f"tldr-daemon-{os.getpid()}"  # a short path: sockets have 107 characters
    folder.mkdir()
    daemon = Daemon(folder)
    try:
        daemon.start()
        saved = subprocess.Popen(["docker", "save", BASE], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", f"--host={daemon.host}", "load", "-q"], stdin=saved.stdout, check=True, capture_output=True
        )
        yield daemon
    finally:
        daemon.stop()


def test_a_dying_daemon_is_one_sentence_and_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(ROOT), str(tmp_path), BASE],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": daemon.host},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (tmp_path / "ready").exists() or launcher.poll() is not None, "the container")
    assert launcher.poll() is None, launcher.communicate()
    daemon.kill()
    output, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert errors.startswith("Error: The Docker daemon stopped while the stage ran; start it and run again")
    assert len(errors.splitlines()) == 1 and output == ""
    wait_until(lambda: not _alive(str(tmp_path)), "the end of the process in the container", seconds=30)
    daemon.start()
    wait_until(lambda: daemon.docker("ps", "--all", "--quiet").stdout == "", "an empty list of containers", seconds=30)


def _alive(marker: str) -> bool:
    """Whether a process in a container of this test still runs; the launcher is not counted."""
    return subprocess.run(["pgrep", "-f", f"^python3 -c .*{marker}/ready"], capture_output=True).returncode == 0
