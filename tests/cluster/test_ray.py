"""The jobs of a stage on a real Ray that is started for the test: shards that are stopped, a training on two machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import drawn, untrained
from tests.test_pipeline_run import environment, set_params, tldr
from tests.training.toy_stage import results

pytest.importorskip("ray", reason="no Ray: pip install -e '.[cluster]'")
pytestmark = [pytest.mark.cluster, pytest.mark.model]


def ray_jobs(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "containers.cluster.ray_jobs", *arguments, "--gpus", "0"]
    own = {"RAY_ADDRESS": "local", "RAY_AUTH_MODE": "disabled"}  # whatever cluster this machine may be part of
    return subprocess.Popen(
        command, cwd=folder, env=environment() | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def shard_process(folder: Path, shard: str) -> int:
    """Id of the process that draws a shard in `folder`, once it has finished a few answers."""
    deadline = time.monotonic() + 300
    log = f"sample-shard-{shard.replace('/', '-of-')}/*/system1.jsonl"
    while time.monotonic() < deadline:
        if any(len(path.read_text().splitlines()) > 5 for path in (folder / ".tldr" / "work").glob(log)):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    command, place = (process / "cmdline").read_bytes(), (process / "cwd").readlink()
                except OSError:
                    continue
                if place == folder and command.endswith(f"\0run\0sample\0--shard\0{shard}\0".encode()):
                    return int(process.name)
        time.sleep(0.02)
    raise AssertionError(f"no process draws shard {shard}")


def test_a_shard_that_is_stopped_is_started_again_and_the_answers_are_those_of_one_job(start, expected, tmp_path):
    folder = tmp_path / "checkout"
    shutil.copytree(start, folder, symlinks=True)
    jobs = ray_jobs(folder, "sample", "--jobs", "2")
    os.kill(shard_process(folder, "0/2"), signal.SIGTERM)
    printed, _ = jobs.communicate(timeout=600)
    assert jobs.returncode == 0, printed
    assert "Stopped by SIGTERM" in printed
    logs = (folder / ".tldr" / "work").glob("sample-shard-*/*/*.jsonl")
    num_drawn = sum(len(log.read_text().splitlines()) for log in logs)
    done = tldr(folder, "run", "sample")
    assert f"{num_drawn} answers taken over from 2 shards" in done.stderr, "no answer was drawn twice"
    assert "tokens/s" not in done.stderr, "nothing was left to draw"
    assert drawn(folder) == expected


def test_a_job_that_fails_ends_with_its_exit_code(start, tmp_path):
    shutil.copytree(start, tmp_path / "checkout", symlinks=True)
    set_params(tmp_path / "checkout", {"model.path": "nowhere"})
    jobs = ray_jobs(tmp_path / "checkout", "sample", "--jobs", "1")
    printed, _ = jobs.communicate(timeout=600)
    assert jobs.returncode == 2, printed
    assert "Job 0 of 1 ended with exit code 2" in printed


def test_two_machines_train_what_two_processes_of_one_do(trained, tmp_path):
    folder = untrained(tmp_path, num_machines=2)
    jobs = ray_jobs(folder, "train", "--jobs", "2")
    printed, _ = jobs.communicate(timeout=600)
    assert jobs.returncode == 0, printed
    assert results(folder) == trained
