"""The whole pipeline for real at a reduced size: real DVC, the shipped model, lm-eval, kills and resumes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages._params import read_yaml
from tests.paths import ROOT

pytestmark = [pytest.mark.pipeline, pytest.mark.model]

SMALL = {
    "sample.samples_per_problem": 3,
    "ratio.control_samples": 1,
    "ratio.bound_samples": 2,
    "ratio.num_errors": 1.0,
    "train.max_steps": 9,
    "train.update_every": 3,
    "train.batch_size": 8,
    "train.warmup_steps": 1,
    "select.margin": 0.3,
    "evaluate.samples": 2,
    "evaluate.resamples": 1000,
}
KEPT = {"system1": 8, "system2": 8, "control": 6, "test": 12}  # every n-th problem


def checkout(folder: Path) -> Path:
    """A git repository with the project's tracked files as they are now, fewer problems and smaller numbers."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith(("results/", "dvc.lock", "tests/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for name, step in KEPT.items():
        path = folder / "data" / "tiny" / f"{name}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::step]))
    set_params(folder, SMALL)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def set_params(folder: Path, values: dict[str, object]) -> None:
    document = read_yaml(folder / "params.yaml")
    for key, value in values.items():
        block, name = key.split(".")
        document[block][name] = value
    (folder / "params.yaml").write_text(json.dumps(document))


def tldr(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line of the checkout in `folder`; the exit code must be `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "stages", *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}


def killed(folder: Path, stage: str, log: str, num_lines: int) -> None:
    """Start a stage and SIGKILL it, workers and all, once its append-only log has `num_lines` lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stages", "run", stage],
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = list((folder / ".tldr" / "work" / stage).glob(f"*/{log}"))
        if found and len(found[0].read_text().splitlines()) >= num_lines:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        assert process.poll() is None, f"{stage} ended before it could be killed"
        time.sleep(0.02)
    raise AssertionError(f"{stage} wrote no {num_lines} lines of {log}")


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def project(host_run, tmp_path_factory):
    """A copy of `host_run` of one's own."""
    folder = tmp_path_factory.mktemp("project") / "checkout"
    shutil.copytree(host_run, folder, symlinks=True)
    return folder


def test_two_jobs_evaluate_what_one_does(host_run, tmp_path):
    """Two jobs draw a share each, without outputs; the stage takes them over, and draws nothing itself. The same of `sample`
    is in tests/cluster."""
    folder = tmp_path / "checkout"
    shutil.copytree(host_run, folder, symlinks=True)
    results = ("results/base.json", "results/questions/base.csv", "artifacts/evaluations/base/responses.parquet")
    for name in results:
        (folder / name).unlink()
    for shard in ("0/2", "1/2"):
        assert "evaluate base: " in tldr(folder, "run", "evaluate@base", "--shard", shard).stderr
    assert not (folder / results[0]).exists()
    done = tldr(folder, "run", "evaluate@base")
    assert "answers taken over from 2 shards" in done.stderr
    assert "evaluate base: " not in done.stderr
    for name in results:
        assert (folder / name).read_bytes() == (host_run / name).read_bytes(), name


def test_the_report_is_complete(project):
    printed = (project / "repro.txt").read_text()
    assert "overall" in printed.lower() and "length-8" in printed
    report = json.loads(tldr(project, "report", "--json").stdout)
    assert report["verdict"] in {"PASS", "FAIL", "INCONCLUSIVE"}
    for side in ("baseline", "candidate"):
        assert {"accuracy", "mean_tokens", "truncation_rate", "no_think_rate", "tasks"} <= report[side].keys()
    assert {"micro", "macro", "ci"} <= report["token_reduction"].keys()
    assert {"value", "ci"} <= report["accuracy_difference"].keys()
    assert isinstance(report["schema_version"], int)


def test_the_report_agrees_with_an_independent_count(project):
    """Ten lines over the question tables, without the project's statistics."""
    report = json.loads(tldr(project, "report", "--json").stdout)
    tokens, accuracy = {}, {}
    for name in ("base", "candidate"):
        lines = (project / "results" / "questions" / f"{name}.csv").read_text().splitlines()
        rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
        tokens[name] = sum(int(row["num_tokens"]) for row in rows)
        accuracy[name] = sum(int(row["correct"]) for row in rows) / len(rows)
    assert report["token_reduction"]["micro"] == pytest.approx(1 - tokens["candidate"] / tokens["base"])
    assert report["accuracy_difference"]["value"] == pytest.approx(accuracy["candidate"] - accuracy["base"])


def test_nothing_is_left_to_do_and_nothing_lies_around(project):
    assert tldr(project, "status").returncode == 0
    again = tldr(project, "repro")
    assert "Running stage" not in again.stdout
    assert not list((project / ".tldr").glob("work/*/*"))
    assert not list(project.glob("**/*.tmp"))


def test_a_training_parameter_evaluates_only_the_candidate_again(project):
    printed = tldr(project, "repro", "-S", "train.lr=0.0005").stdout
    for stage in ("sample", "label-by-length", "ratio-schedule", "evaluate@base"):
        assert f"Stage '{stage}' didn't change, skipping" in printed
    for stage in ("train", "evaluate@candidate"):
        assert f"Running stage '{stage}'" in printed


def test_killed_training_ends_with_the_same_weights_bit_for_bit(project):
    """Killed after the first control evaluation, and again in the middle of a later window."""
    expected = digests(project / "artifacts" / "model")
    trajectory = (project / "results" / "ratio.csv").read_bytes()
    killed(project, "train", "windows.jsonl", 1)
    killed(project, "train", "windows.jsonl", 2)
    tldr(project, "run", "train")
    assert digests(project / "artifacts" / "model") == expected
    assert (project / "results" / "ratio.csv").read_bytes() == trajectory


def test_a_second_cold_run_gives_the_same_bytes(project):
    first = {name: (project / name).read_bytes() for name in ("results/metrics.json", "dvc.lock")}
    for name in ("artifacts", ".dvc/cache", ".dvc/tmp", ".tldr"):
        shutil.rmtree(project / name, ignore_errors=True)
    for name in ("dvc.lock", "results/metrics.json"):
        (project / name).unlink()
    tldr(project, "repro")
    assert {name: (project / name).read_bytes() for name in first} == first


def second_model(folder: Path) -> None:
    """Another model than the shipped one: its weights, slightly disturbed, in a folder of its own."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(ROOT / "models" / "tiny", folder)
    generator = torch.Generator().manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        weights[name] = value + 0.002 * torch.randn(value.shape, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_another_model_and_other_prompts_by_parameter(tmp_path):
    """README, "Use it on your model": own model folder, own files with the required fields only, then `tldr repro`."""
    folder = checkout(tmp_path)
    second_model(folder / "models" / "mine")
    (folder / "data" / "mine").mkdir()
    changes = ["model.path=models/mine"]
    for source, name in (("system1", "easy"), ("system2", "hard"), ("control", "control"), ("test", "test")):
        lines = (folder / "data" / "tiny" / f"{source}.jsonl").read_text().splitlines()
        rows = [{key: json.loads(line)[key] for key in ("id", "prompt", "gold")} for line in lines]
        path = folder / "data" / "mine" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row | {"id": f"mine-{row['id']}"}) + "\n" for row in rows))
        changes.append(f"data.{source}.path=data/mine/{name}.jsonl")
    tldr(folder, "repro", *(word for change in changes for word in ("-S", change)))
    report = json.loads(tldr(folder, "report", "--json").stdout)
    assert report["baseline"]["num_questions"] == len(rows)
    assert report["baseline"]["accuracy"] > 0.8
    table = (folder / "results" / "questions" / "base.csv").read_text()
    assert table.count("mine-test-") == len(rows) * SMALL["evaluate.samples"]


def test_bounds_that_do_not_differ_are_refused_before_training(project):
    """The base model as its own short reference: no gap in length, so nothing to steer by."""
    before, schedule = (project / "params.yaml").read_text(), (project / "artifacts" / "schedule.json").read_bytes()
    document = read_yaml(project / "params.yaml")
    document["ratio"]["short_bound"] |= {"source": "model", "path": document["model"]["path"]}
    (project / "params.yaml").write_text(json.dumps(document))
    try:
        failed = tldr(project, "run", "ratio-schedule", code=1)
    finally:
        (project / "params.yaml").write_text(before)
    assert "The ratio cannot be steered: long_tokens" in failed.stderr and "Traceback" not in failed.stderr
    assert (project / "artifacts" / "schedule.json").read_bytes() == schedule


def test_an_untrained_model_is_refused_with_the_next_step(project):
    """The last one: it leaves answers of that model."""
    from tests.toy_model import save_random_model

    save_random_model(project / "models" / "random")
    before = (project / "params.yaml").read_text()
    document = read_yaml(project / "params.yaml")
    document["model"]["path"] = "models/random"
    document["decode"]["max_tokens"] = 32
    (project / "params.yaml").write_text(json.dumps(document))
    try:
        tldr(project, "run", "sample")
        failed = tldr(project, "run", "label-by-length", code=1)
    finally:
        (project / "params.yaml").write_text(before)
    assert "System-1 set is empty" in failed.stderr and "Traceback" not in failed.stderr
