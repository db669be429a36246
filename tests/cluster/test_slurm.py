"""The job scripts of containers/cluster/slurm/ on a real Slurm, of two nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages._params import read_yaml
from tests.cluster.conftest import SOURCES, drawn, untrained
from tests.cluster.slurm import missing, slurm
from tests.paths import ROOT
from tests.test_pipeline_run import environment
from tests.training.toy_stage import results

pytestmark = pytest.mark.cluster
SCRIPTS = "containers/cluster/slurm"
SECONDS = 300.0  # by then something hangs
# In place of tldr: says when it is up, ends with 75 at SIGTERM, and with 0 when it is started again. Slurm signals a job's
# processes one by one: what waited for a single `sleep` could end, by the sleep's end, before its own SIGTERM.
TOY_JOB = """#!/bin/bash
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
source {root}/containers/cluster/slurm/again.sh
again bash -c 'trap "echo stopped; exit 75" TERM; echo up; [ -n "$SLURM_RESTART_COUNT" ] || while :; do sleep .1; done'
"""
SHIM = '#!/bin/sh\nexec {python} -m stages "$@"\n'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment to submit from; `tldr` in it is the checkout's that a job runs in."""
    reason = missing()
    if reason is not None:
        pytest.skip(f"no Slurm: {reason}")
    program = tmp_path_factory.mktemp("bin") / "tldr"
    program.write_text(SHIM.format(python=sys.executable))
    program.chmod(0o755)
    with slurm(tmp_path_factory.mktemp("slurm")) as found:
        path = f"{program.parent}{os.pathsep}{environment()['PATH']}"
        yield {**environment(), **found, "PATH": path, "MASTER_ADDR": "127.0.0.1"}


def ask(cluster: dict[str, str], folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=cluster, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def submit(cluster: dict[str, str], folder: Path, *arguments: str) -> str:
    """The number of the job."""
    return ask(cluster, folder, "sbatch", "--parsable", "--kill-on-invalid-dep=yes", *arguments)


def ended_well(cluster: dict[str, str], folder: Path, job: str) -> str:
    """What the job, or all tasks of an array, wrote."""
    until(lambda: not ask(cluster, folder, "squeue", "--noheader", f"--jobs={job}"), folder)
    states = re.findall(r"JobState=(\w+)", ask(cluster, folder, "scontrol", "show", "job", job))
    assert set(states) == {"COMPLETED"}, f"{states} {logs(folder)}"
    return logs(folder)


def until(condition, folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, logs(folder)
        time.sleep(0.1)


def logs(folder: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(folder.glob("slurm-*.log")))


@pytest.mark.model
def test_a_preempted_job_goes_on_where_it_was(cluster, start, expected, tmp_path):
    """A job of a higher partition takes the node: Slurm warns the script, which ends with 75, puts itself back and waits."""
    folder = tmp_path / "checkout"
    shutil.copytree(start, folder, symlinks=True)
    job = submit(cluster, folder, f"{SCRIPTS}/stage.sbatch", "sample")
    found: list[Path] = []

    def drawing() -> bool:
        found[:] = (folder / ".tldr" / "work" / "sample").glob("*/system1.jsonl")
        return bool(found) and len(found[0].read_text().splitlines()) >= 5

    until(drawing, folder)
    with found[0].open() as answers:  # read to its end after the folder is gone
        submit(cluster, folder, "--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=true")
        log = ended_well(cluster, folder, job)
        keys = [(row["problem_id"], row["sample_index"]) for row in map(json.loads, answers)]
    assert "Restarts=1" in ask(cluster, folder, "scontrol", "show", "job", job)
    assert log.count("Stopped by SIGTERM; run the same command again") == 1, log
    assert log.count("Running stage 'sample'") == 2, log
    num_problems = len((folder / "data" / "tiny" / "system1.jsonl").read_text().splitlines())
    assert len(set(keys)) == len(keys) == 2 * num_problems
    assert drawn(folder) == expected


def test_only_what_was_warned_comes_back(cluster, tmp_path):
    """One of two tasks of an array is warned, the other one and a job of its own are cancelled."""
    (tmp_path / "toy.sbatch").write_text(TOY_JOB.format(root=ROOT))
    array = submit(cluster, tmp_path, "--array=0-1", "toy.sbatch")
    alone = submit(cluster, tmp_path, "toy.sbatch")
    until(lambda: logs(tmp_path).count("up\n") == 3, tmp_path)
    ask(cluster, tmp_path, "scancel", "--batch", "--signal=USR1", f"{array}_1")
    ask(cluster, tmp_path, "scancel", f"{array}_0", alone)
    until(lambda: not ask(cluster, tmp_path, "squeue", "--noheader"), tmp_path)
    shown = [ask(cluster, tmp_path, "scontrol", "show", "job", job) for job in (f"{array}_0", f"{array}_1", alone)]
    ends = [re.findall(r"(?:JobState|Restarts)=(\w+)", text) for text in shown]
    assert ends == [["CANCELLED", "0"], ["COMPLETED", "1"], ["CANCELLED", "0"]], logs(tmp_path)
    assert logs(tmp_path).count("stopped") == 3


@pytest.mark.model
def test_an_array_of_shards_and_the_job_that_joins_them(cluster, start, expected, tmp_path):
    folder = tmp_path / "checkout"
    shutil.copytree(start, folder, symlinks=True)
    shards = submit(cluster, folder, "--array=0-1", f"{SCRIPTS}/shards.sbatch", "sample")
    joined = submit(cluster, folder, "--hold", f"--dependency=afterok:{shards}", f"{SCRIPTS}/stage.sbatch", "sample")
    log = ended_well(cluster, folder, shards)
    answers = [row for path in (folder / ".tldr" / "work").rglob("*.jsonl") for row in path.read_text().splitlines()]
    ask(cluster, folder, "scontrol", "release", joined)
    ended_well(cluster, folder, joined)
    assert drawn(folder) == expected
    counts = [json.loads(expected["results/sample.json"])[name]["num_responses"] for name in SOURCES]
    assert len(set(answers)) == len(answers) == sum(counts), log  # the shards drew all of them, each once


@pytest.mark.model
def test_two_nodes_train_what_two_processes_of_one_do(cluster, trained, tmp_path):
    """Weights and history byte for byte; machine 0 runs under DVC, which has recorded the stage."""
    folder = untrained(tmp_path, num_machines=2)
    document = read_yaml(folder / "dvc.yaml")
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {"train": document["stages"]["train"]}}))
    log = ended_well(cluster, folder, submit(cluster, folder, "--nodes=2", f"{SCRIPTS}/train.sbatch"))
    assert log.count("train: container engine host") == 2, log  # each machine says so
    assert results(folder) == trained
    assert "train" in read_yaml(folder / "dvc.lock")["stages"]


def test_the_whole_pipeline_is_submitted_in_order(cluster, start):
    """Into a partition that starts nothing: which job waits for which."""
    ask({**cluster, "SBATCH_PARTITION": "closed"}, start, "bash", f"{SCRIPTS}/pipeline.sh", "3", "2")
    lines = ask(cluster, start, "squeue", "--noheader", "--format=%F %K %D %E", "--sort=i").splitlines()
    ask(cluster, start, "scancel", "--partition=closed", "--state=PENDING")
    jobs = [line.split(maxsplit=3) for line in lines]
    sample, base, ratio, train, candidate, report = numbers = [job[0] for job in jobs]
    waits_for = {job[0]: set(re.findall(r"afterok:(\d+)", job[3])) for job in jobs}
    assert waits_for == {
        sample: set(),
        base: set(),
        ratio: {sample},
        train: {ratio},
        candidate: {train},
        report: {base, candidate},
    }, lines
    assert [jobs[numbers.index(each)][1] for each in (sample, base, candidate)] == ["0-2"] * 3
    assert jobs[numbers.index(train)][2] == "2"
