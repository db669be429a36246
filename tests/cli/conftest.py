"""A small checkout in a temporary folder: the real command line and parameters, toy stages, real git and DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ("sample", "label_by_length", "ratio_schedule", "train", "evaluate")

# Each toy stage reads from behaviour.txt what it is to do, and writes a random token if it ends well.
TOY_STAGE = """
import os, sys, time
from pathlib import Path
from stages._errors import StageFailed, UserError

def main(root, params, which=None):
    name = Path(__file__).stem.replace("_", "-") + (f"@{which}" if which else "")
    told, _, behaviour = (root / "behaviour.txt").read_text().strip().partition(" ")
    work = root / ".tldr" / "work" / name.replace("@", "-") / "f00"
    work.mkdir(parents=True, exist_ok=True)
    (work / "shard.jsonl").write_text("{}")
    if told == name:
        if behaviour == "user":
            raise UserError("The toy was given a bad file; give it a good one.")
        if behaviour == "fail":
            raise StageFailed("The toy found something wrong; look at it.")
        if behaviour == "bug":
            raise KeyError("toy")
        if behaviour == "full":
            with open("/dev/full", "w") as stream:
                stream.write("x")
        if behaviour == "gpu":
            import torch
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if behaviour == "exit":
            sys.exit(3)
        if behaviour == "kill":
            os.kill(os.getpid(), 9)
        if behaviour == "sleep":
            (root / "ready").write_text("")
            time.sleep(60)
    output = root / "artifacts" / f"{name}.txt"
    output.parent.mkdir(exist_ok=True)
    output.write_text(f"{name} {params.seed} {params.ratio.init} {os.environ['HF_HUB_OFFLINE']}")
    (work / "done").write_text("")
"""

DVC_YAML = """
stages:
  sample:
    cmd: python -m stages run sample
    deps: [behaviour.txt]
    params: [seed, ratio.init]
    outs: [artifacts/sample.txt]
  train:
    cmd: python -m stages run train
    deps: [artifacts/sample.txt]
    outs: [artifacts/train.txt]
"""


def make_checkout(root: Path) -> Path:
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", root)
    for module in MODULES:
        (root / "stages" / f"{module}.py").write_text(TOY_STAGE)
    (root / "behaviour.txt").write_text("none\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / ".gitignore").write_text("__pycache__/\n.tldr/\nready\n")
    return root


def enter(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(root.parent / "site"))
    for name in ("TLDR_DEBUG", "TLDR_RUN_ID", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line with toy stages; neither git nor DVC knows it yet. It is the current folder."""
    return enter(make_checkout(tmp_path / "checkout"), monkeypatch)


@pytest.fixture(scope="session")
def first_commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same under git and DVC, with a first commit; to be copied, not to be run in."""
    checkout = make_checkout(tmp_path_factory.mktemp("start") / "checkout")
    identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-P", "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", *identity, "commit", "-q", "-m", "start"],
    ):
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    return checkout


@pytest.fixture
def repository(first_commit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `first_commit` of one's own; the current folder."""
    shutil.copytree(first_commit, tmp_path / "checkout", symlinks=True)
    return enter(tmp_path / "checkout", monkeypatch)


Tldr = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tldr() -> Tldr:
    """Run `python -m stages ...` in the current folder, as a user would."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stages", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)

    return run
