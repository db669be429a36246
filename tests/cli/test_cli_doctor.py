"""`tldr doctor`: one line per check, exit code 1 if anything fails."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.__main__ import main
from stages._params import load_params
from stages.cli import doctor
from stages.cli.doctor import Check, check_disk, check_git, check_inputs, check_packages, check_vllm
from tests.paths import ROOT

PYPROJECT = """
[project]
dependencies = ["click>=8", "rich[jupyter]>=1 ; python_version > '3'", "nosuch-a==1 ; python_version < '3'"]
[project.optional-dependencies]
stages = [{stages}]
"""


def by_name(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


@pytest.mark.parametrize(
    ("stages", "verdict", "part"),
    [
        ('"click>=8"', "PASS", "1 as pinned"),
        ('"nosuch-b==1"', "FAIL", "missing: nosuch-b; run `pip install -e '.[stages]'`."),
        ('"click==1.0"', "WARN", "instead of ==1.0"),
    ],
)
def test_packages_are_compared_with_the_pins(checkout: Path, stages: str, verdict: str, part: str) -> None:
    (checkout / "pyproject.toml").write_text(PYPROJECT.format(stages=stages))
    base, extra = check_packages(checkout), check_packages(checkout, "stages")
    assert base.verdict == "PASS"
    assert extra.verdict == verdict
    assert part in extra.message


def test_vllm_is_looked_for_where_it_is_the_engine() -> None:
    """Here without vLLM (make test) as with vLLM for CPU (make test-vllm)."""
    installed = importlib.util.find_spec("vllm") is not None
    on_cpu, on_gpu = check_vllm(ROOT, "cpu"), check_vllm(ROOT, "cuda")
    assert on_cpu.verdict == ("PASS" if installed else "FAIL")
    assert on_gpu.verdict == "FAIL", "no distribution called vllm is installed"
    assert "run `pip install -e '.[vllm]'`" in on_gpu.message


def test_a_missing_pyproject_fails(checkout: Path) -> None:
    assert check_packages(checkout).verdict == "FAIL"


def test_model_and_problem_files_are_looked_at(checkout: Path) -> None:
    (checkout / "data" / "tiny").mkdir(parents=True)
    (checkout / "data" / "tiny" / "system1.jsonl").write_text('{"id": "a", "prompt": "1 ?", "gold": "1"}\n')
    (checkout / "data" / "tiny" / "system2.jsonl").write_text('{"id": "a", "prompt": 1, "gold": "1"}\n')
    checks = list(check_inputs(checkout, load_params(checkout)))
    assert by_name(checks) == {
        "model": "FAIL",
        "data system1": "PASS",
        "data system2": "FAIL",
        "data control": "FAIL",
        "data test": "FAIL",
    }


def test_low_disk_and_missing_git_are_warnings(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 10**18)
    assert check_disk(checkout).verdict == "WARN"
    monkeypatch.setenv("PATH", "")
    assert check_git().verdict == "WARN"


def test_every_line_has_a_verdict_and_the_exit_code_follows(repository: Path) -> None:
    answer = CliRunner().invoke(main, ["doctor"])
    assert answer.exit_code == 1
    verdicts = {line.split()[0] for line in answer.stdout.splitlines()}
    assert verdicts <= {"PASS", "WARN", "FAIL"}
    checks = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert {check["name"]: check["verdict"] for check in checks}["dvc"] == "PASS"
    assert {"name", "verdict", "message"} == set(checks[0])


def test_without_a_repository_the_dvc_line_fails(checkout: Path) -> None:
    (checkout / ".dvc").mkdir()
    checks = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    line = next(check for check in checks if check["name"] == "dvc")
    assert line["verdict"] == "FAIL"
    assert "git init" in line["message"]


def test_broken_parameters_are_one_failing_line(repository: Path) -> None:
    (repository / "params.yaml").write_text("seed: 1\n")
    answer = CliRunner().invoke(main, ["doctor", "--json"])
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)[-1]["name"] == "params.yaml"
