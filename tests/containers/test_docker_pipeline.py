"""The five stages in real containers: the same numbers and the same weights as on the host, and the lock says where."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages._params import read_yaml
from tests.containers.conftest import run_tldr
from tests.test_pipeline_run import checkout, digests

pytestmark = [pytest.mark.containers, pytest.mark.pipeline, pytest.mark.model]

STAGES = ("sample", "label-by-length", "ratio-schedule", "train", "evaluate@base", "evaluate@candidate")
PLACE = ("container_engine", "container_device", "container_image")
RESULTS = ("sample", "labels", "schedule", "train", "base", "metrics")


@pytest.fixture(scope="module")
def contained(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of reduced size in which `dvc repro` has run every stage in a container."""
    root = checkout(tmp_path_factory.mktemp("contained"))
    shutil.copy(built / "containers" / "images.yaml", root / "containers")
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace('"engine": "host"', '"engine": "docker"', 1))
    commit = ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "docker"]
    subprocess.run(["git", *commit], cwd=root, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=root, capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return root


def _environment() -> dict[str, str]:
    from tests.test_pipeline_run import environment

    return environment()


def results(root: Path) -> dict[str, Any]:
    return {name: json.loads((root / "results" / f"{name}.json").read_text()) for name in RESULTS}


def test_a_container_gives_the_numbers_and_weights_of_the_host(contained: Path, host_run: Path) -> None:
    mine, hosts = results(contained), results(host_run)
    for name in RESULTS:
        inputs = read_yaml(contained / "containers" / "images.yaml")["images"]["cpu"]["inputs"]
        assert [mine[name].pop(key) for key in PLACE] == ["docker", "cpu", f"cpu@{inputs}"]
        assert [hosts[name].pop(key) for key in PLACE] == ["host", "cpu", None]
    assert mine == hosts
    assert digests(contained / "artifacts" / "model") == digests(host_run / "artifacts" / "model")
    tables = [sorted((root / "results" / "questions").iterdir()) for root in (contained, host_run)]
    assert [path.read_bytes() for path in tables[0]] == [path.read_bytes() for path in tables[1]]


def test_the_lock_holds_the_image_of_every_stage(contained: Path, host_run: Path) -> None:
    image = read_yaml(contained / "containers" / "images.yaml")["images"]["cpu"]
    for root, key, value in ((contained, "run_in.docker.cpu", image), (host_run, "run_in.host.cpu", "host")):
        stages = read_yaml(root / "dvc.lock")["stages"]
        assert [stages[stage]["params"]["containers/images.yaml"] for stage in STAGES] == [{key: value}] * len(STAGES)


def test_every_result_says_where_it_was_made(contained: Path) -> None:
    image = read_yaml(contained / "containers" / "images.yaml")["images"]["cpu"]
    paths = sorted((contained / "artifacts" / "provenance").glob("*.json"))
    assert len(paths) == len(STAGES)
    for path in paths:
        record = json.loads(path.read_text())
        assert record["image"] == {"name": "cpu", "base": image["base"], "inputs": image["inputs"]}
        assert (record["container_engine"], record["device"]) == ("docker", "cpu")
    printed = run_tldr(contained, "report", COLUMNS="200").stdout
    assert f"container engine docker, device cpu, image cpu:{image['inputs'][7:19]}." in printed


def test_a_changed_image_runs_its_stages_again_and_limits_do_not(contained: Path) -> None:
    params, lock = contained / "params.yaml", contained / "containers" / "images.yaml"
    before = params.read_text(), lock.read_text()
    document = read_yaml(params)
    document["container"] |= {"shm_gb": 2.0, "memory_gb": 16.0, "pids_limit": 999}
    try:
        params.write_text(json.dumps(document))
        assert _changed(contained) == set()
        lock.write_text(before[1].replace(read_yaml(lock)["images"]["cpu"]["inputs"], "sha256:" + "0" * 64))
        assert _changed(contained) == set(STAGES)
    finally:
        params.write_text(before[0])
        lock.write_text(before[1])


def _changed(root: Path) -> set[str]:
    status = json.loads(run_tldr(root, "status", "--json").stdout)
    return {name for name, stage in status["stages"].items() if stage["state"] != "up to date"}
