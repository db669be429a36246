"""What the tests of clusters compare with: one uninterrupted run of a stage each, without a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.test_pipeline_run import checkout, set_params, tldr
from tests.toy_model import save_random_model
from tests.training.toy_stage import prepare, results, toy_params

SLOW = {"engine.batch_size": 16, "engine.processes": 1, "sample.samples_per_problem": 2, "ratio.bound_samples": 1}
SOURCES = ("system1", "system2", "control")
DRAWN = (
    "artifacts/samples.parquet",
    "artifacts/control.parquet",
    "artifacts/provenance/sample.json",
    "results/sample.json",
)


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Path:
    """A checkout of a few dozen problems, drawn slowly enough to be stopped; to be copied."""
    folder = checkout(tmp_path_factory.mktemp("start"))
    for name in SOURCES:
        path = folder / "data" / "tiny" / f"{name}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::2]))
    set_params(folder, SLOW)
    return folder


@pytest.fixture(scope="session")
def expected(start, tmp_path_factory) -> dict[str, bytes]:
    """What one uninterrupted run of the stage `sample` writes, without Slurm."""
    folder = tmp_path_factory.mktemp("alone") / "checkout"
    shutil.copytree(start, folder, symlinks=True)
    tldr(folder, "run", "sample")
    return drawn(folder)


def drawn(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in DRAWN}


def untrained(folder: Path, *, num_machines: int) -> Path:
    """A checkout in `folder` with a toy model that two processes are to train, on one machine or one on each of two."""
    launch = {"kind": "ddp", "num_machines": num_machines, "num_processes": 2 // num_machines}
    (folder / "checkout").mkdir()
    prepare(
        save_random_model(folder / "model"),
        checkout(folder / "checkout"),
        toy_params(train={"micro_batch_size": 1, "launch": launch}),
    )
    return folder / "checkout"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Results of the stage `train` on one machine with two processes."""
    folder = untrained(tmp_path_factory.mktemp("trained"), num_machines=1)
    tldr(folder, "run", "train")
    return results(folder)
