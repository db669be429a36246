"""Fixtures of the tests marked `containers`: a Docker engine, a base image, and the cpu image built over it.

`tests/containers/engine.sh` brings engine and base; without them these tests skip and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages._params import read_yaml
from tests.cli.conftest import make_checkout
from tests.paths import ROOT

BASE = "tldr-test-base:bookworm"
PYTHON = (3, 11)  # of the base
WHEELS = ROOT / "containers" / "wheels"
IMAGE_PARAM = "{containers/images.yaml: ['run_in.${container.engine}.${container.device}']}"
READY = "artifacts/ready"

# What the toy stage does is the Python program in behaviour.py, with the checkout as `root`.
TOY_STAGE = """
from pathlib import Path

def main(root, params):
    exec((root / "behaviour.py").read_text(), {"root": root})
    (root / "artifacts" / "sample.txt").write_text("done")
"""
DVC_YAML = f"""
stages:
  sample:
    cmd: python -m stages run sample
    deps: [behaviour.py, artifacts/input.txt]
    params: [seed, {IMAGE_PARAM}]
    outs: [artifacts/sample.txt]
"""


@pytest.fixture(scope="session")
def docker_api() -> Any:
    """The low-level Docker client, or a skip with the reason."""
    from containers.docker_engine import find_image, open_client
    from stages._errors import UserError

    try:
        api = open_client()
    except UserError as error:
        pytest.skip(f"no container engine: {error}")
    if find_image(api, BASE) is None:
        pytest.skip(f"no image {BASE}; run tests/containers/engine.sh")
    return api


@pytest.fixture(scope="session")
def base_id(docker_api: Any) -> str:
    return str(docker_api.inspect_image(BASE)["Id"])


@pytest.fixture(scope="session")
def built(docker_api: Any, base_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose containers/ holds the project's build files, locked over the base, with the cpu image built."""
    from containers.wheels import download_wheels

    if sys.version_info[:2] != PYTHON:
        pytest.skip("the base image has Python 3.11, so the wheels for it are fetched with Python 3.11")
    download_wheels(ROOT / "containers" / "cpu" / "requirements.py311.lock", WHEELS)
    root = tmp_path_factory.mktemp("built") / "checkout"
    shutil.copytree(ROOT / "containers", root / "containers", ignore=shutil.ignore_patterns("wheels", "__pycache__"))
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(WHEELS, root / "containers" / "wheels", copy_function=os.link)
    shutil.copy(ROOT / "params.yaml", root)
    run_tldr(root, "images", "lock", "--digests-only", "--base", f"cpu={base_id}")
    run_tldr(root, "images", "build", "cpu", "--offline", DOCKER_BUILDKIT="0")
    return root


def run_tldr(root: Path, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stages ARGUMENTS` of the checkout `root`; its exit code must be `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "stages", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="session")
def toy_start(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command line with one toy stage that runs in the cpu image; to be copied."""
    root = make_checkout(tmp_path_factory.mktemp("toy") / "checkout")
    shutil.copytree(built / "containers", root / "containers", ignore=shutil.ignore_patterns("wheels"))
    (root / "stages" / "sample.py").write_text(TOY_STAGE)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "behaviour.py").write_text("")
    (root / "artifacts").mkdir()
    (root / "artifacts" / "input.txt").write_text("read me only")
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("engine: host ", "engine: docker ", 1))
    assert read_yaml(root / "params.yaml")["container"]["engine"] == "docker"
    for command in (["git", "init", "-q"], [sys.executable, "-P", "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def toy(toy_start: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of one's own; no container of it may be left at the end."""
    from containers.docker_engine import open_client
    from containers.strays import containers

    root = tmp_path / "checkout"
    shutil.copytree(toy_start, root)
    yield root
    mine = [found for found in containers(open_client()) if found["Labels"]["io.tldr.checkout"] == str(root)]
    assert mine == []


def behave(root: Path, program: str) -> None:
    (root / "behaviour.py").write_text(program)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)
