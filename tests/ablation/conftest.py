"""A small committed checkout: the real command line, DVC and git, toy stages that write results which follow from seed and
share, and a plan of two fixed shares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT

MODULES = ("sample", "label_by_length", "train", "evaluate")
SETS = ("system1", "system2", "control", "test")

# Writes a line to $TOY/log; fails or waits where a file of its name and share lies in $TOY.
TOY_STAGE = """
import json, os
from pathlib import Path
from stages._errors import StageFailed

def main(root, params, which=None):
    share, seed, toy = params.ratio.init, params.seed, Path(os.environ["TOY"])
    name = Path(__file__).stem + (f"-{which}" if which else "")
    with (toy / "log").open("a") as log:
        log.write(f"{name} {share} {seed}\\n")
    if (toy / f"fail-{name}-{share}").exists():
        raise StageFailed("The toy found something wrong; look at it.")
    if (toy / f"wait-{name}-{share}").exists():
        (toy / f"wait-{name}-{share}").open("w").close()
        (toy / "go-on").open().read()
    write(root / "artifacts" / f"{name}.txt", f"{name} {share if name == 'train' else ''} {seed}")
    tokens, accuracy = 80 - 20 * share + seed, 0.98 + 0.001 * seed
    control = {"control_tokens": tokens, "control_accuracy": accuracy, "selected_step": 48, "selection_fallback": 0}
    if name == "train":
        write(root / "results" / "train.json", json.dumps(control | {"short_share_mean": share}))
        write(root / "results" / "schedule.json", json.dumps({"long_tokens": 160.0, "long_accuracy": 0.985}))
    if which:
        write(root / "results" / f"evaluate-{which}.json", "{}")
    if which == "candidate":
        questions = len(Path(params.data.test.path).read_text().splitlines())
        measured = {"candidate_mean_tokens": tokens + 1, "candidate_accuracy": accuracy, "baseline_mean_tokens": 160.0,
            "baseline_accuracy": 0.985, "token_reduction": 1 - (tokens + 1) / 160, "accuracy_difference": accuracy - 0.985,
            "verdict": 1, "baseline_num_questions": questions}
        write(root / "results" / "metrics.json", json.dumps(measured))

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
"""

DVC_YAML = """
stages:
  sample:
    cmd: python -m stages run sample
    deps: ["${data.system1.path}"]
    params: [seed, engine]
    outs: [artifacts/sample.txt]
  label-by-length:
    cmd: python -m stages run label-by-length
    deps: [artifacts/sample.txt, "${data.test.path}"]
    outs: [artifacts/label_by_length.txt]
  train:
    cmd: python -m stages run train
    deps: [artifacts/label_by_length.txt, stages/train.py]
    params: [seed, ratio]
    outs: [artifacts/train.txt]
    metrics:
    - results/train.json: {cache: false}
    - results/schedule.json: {cache: false}
  evaluate:
    foreach:
      base: {needs: "${data.control.path}"}
      candidate: {needs: artifacts/train.txt}
    do:
      cmd: python -m stages run evaluate@${key}
      deps: ["${item.needs}", "${data.test.path}"]
      params: [seed]
      outs:
      - artifacts/evaluate-${key}.txt
      - results/evaluate-${key}.json: {cache: false}
"""

PLAN = """
jobs: 1
engine: {processes: 1, threads: 1}
tune_seeds: [1, 2]
report_seeds: [3, 4]
test_seed: 5
frontier: {chains: 200, seed: 1}
arms:
  none: {schedule: static, init: 0.0}
  all: {schedule: static, init: 1.0}
variants: []
"""

Tldr = Callable[..., "subprocess.CompletedProcess[str]"]


def commit(root: Path, message: str = "change") -> None:
    identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", *identity, "commit", "-q", "-m", message], cwd=root, check=True)


def start(root: Path, toy: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python -m stages ablate ...` in `root`, as a user would."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages", "ablate", *arguments],
        cwd=root,
        env={**os.environ, "TOY": str(toy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def first_commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied, not to be run in."""
    root = tmp_path_factory.mktemp("ablation") / "checkout"
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", root)
    for module in MODULES:
        (root / "stages" / f"{module}.py").write_text(TOY_STAGE)
    (root / "data" / "tiny").mkdir(parents=True)
    for name in SETS:
        lines = (ROOT / "data" / "tiny" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (root / "data" / "tiny" / f"{name}.jsonl").write_text("".join(lines[::16]))
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "ablation.yaml").write_text(PLAN)
    (root / ".gitignore").write_text("__pycache__/\n.tldr/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run([sys.executable, "-P", "-m", "dvc", "init", "-q"], cwd=root, check=True, capture_output=True)
    commit(root, "start")
    return root


@pytest.fixture
def checkout(first_commit: Path, tmp_path: Path) -> Path:
    """A copy of `first_commit` of one's own."""
    shutil.copytree(first_commit, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The folder through which the toy stages are told what to do, and say what they did."""
    (tmp_path / "toy").mkdir()
    return tmp_path / "toy"


@pytest.fixture
def ablate(checkout: Path, toy: Path) -> Tldr:
    """Run `tldr ablate ...` in the checkout to its end; the exit code must be `code`."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        process = start(checkout, toy, *arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, out + err
        return subprocess.CompletedProcess(process.args, code, out, err)

    return run
