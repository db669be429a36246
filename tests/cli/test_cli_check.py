"""`tldr check` as continuous integration runs it: every exit code, in a process of its own, with real files and git."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from stages._params import read_yaml
from stages.cli.check import command as check_command
from tests.paths import ROOT

HEADER = "task,group,question_id,sample_index,correct,num_tokens,truncated,no_think\n"
CANDIDATE = "results/questions/candidate.csv"
Check = Callable[..., "subprocess.CompletedProcess[str]"]


def write_table(path: Path, wrong: Mapping[str, int], *, num: int = 400, tokens: int = 100) -> None:
    """One answer to each of `num` questions per task, of which the first so many are wrong."""
    rows = [
        f"{task},,q{i},0,{int(i >= count)},{tokens + 7 * i % 10},0,0\n"
        for task, count in wrong.items()
        for i in range(num)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(rows), encoding="utf-8")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stages", "check", *arguments]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "TLDR_"))}
    return {**kept, "COLUMNS": "120", "NO_COLOR": "1", **changes}


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the shipped policy and parameters and a baseline of 40 wrong answers of 400; the current folder."""
    for name in ("params.yaml", "policy.yaml"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("resamples: 10000", "resamples: 1000")
        (tmp_path / name).write_text(text.replace("accuracy_margin: 0.01", "accuracy_margin: 0.02"), encoding="utf-8")
    write_table(tmp_path / "baseline.csv", {"toy": 40})
    write_table(tmp_path / CANDIDATE, {"toy": 40})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check() -> Check:
    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), capture_output=True, text=True, env=environment(**changes), timeout=120, check=False
        )

    return run


def sentence(answer: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line in which a refusal says why."""
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("Error: ") and len(answer.stderr.splitlines()) == 1
    return answer.stderr


def test_a_pass_ends_with_0(gate: Path, check: Check) -> None:
    answer = check("--baseline", "baseline.csv", "--strict")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("PASS: no regression against baseline.csv")
    assert "No off-domain benchmark is in the results" in answer.stdout


def test_a_regression_ends_with_1(gate: Path, check: Check) -> None:
    write_table(gate / CANDIDATE, {"toy": 100})
    answer = check("--baseline", "baseline.csv")
    assert answer.returncode == 1, answer.stderr
    assert answer.stdout.startswith("FAIL: a regression against baseline.csv is shown: toy (accuracy)")


def test_an_inconclusive_gate_ends_with_0_and_with_3_if_strict(gate: Path, check: Check) -> None:
    write_table(gate / CANDIDATE, {"toy": 50})
    relaxed, strict = check("--baseline", "baseline.csv"), check("--baseline", "baseline.csv", "--strict")
    assert relaxed.stdout == strict.stdout and relaxed.stdout.startswith("INCONCLUSIVE")
    assert (relaxed.returncode, strict.returncode) == (0, 3)


def test_wrong_usage_and_wrong_policies_end_with_2(gate: Path, check: Check) -> None:
    assert check().returncode == 2
    assert check("--baseline", "baseline.csv", "--junit", "").returncode == 2
    policy = gate / "policy.yaml"
    policy.write_text(policy.read_text().replace("tier: critical", "tier: vital"))
    assert "policy.yaml: defaults.tier = 'vital'" in sentence(check("--baseline", "baseline.csv"), 2)
    policy.write_text("a: [")
    assert "policy.yaml is not valid YAML" in sentence(check("--baseline", "baseline.csv"), 2)


def test_what_is_missing_or_unreadable_ends_with_4(gate: Path, check: Check) -> None:
    assert "neither a file nor a git revision" in sentence(check("--baseline", "absent.csv"), 4)
    assert "other.yaml" in sentence(check("--baseline", "baseline.csv", "--policy", "other.yaml"), 4)
    (gate / CANDIDATE).write_text(HEADER + "toy,,q0,0,yes,10,0,0\n")
    assert "line 2, field correct" in sentence(check("--baseline", "baseline.csv"), 4)
    (gate / CANDIDATE).unlink()
    assert "candidate.csv does not exist" in sentence(check("--baseline", "baseline.csv"), 4)


def test_what_must_not_be_compared_ends_with_4(gate: Path, check: Check) -> None:
    write_table(gate / CANDIDATE, {"other": 40})
    assert "no benchmark in common" in sentence(check("--baseline", "baseline.csv"), 4)
    write_table(gate / CANDIDATE, {"toy": 40}, num=300)
    assert "--allow-mismatch" in sentence(check("--baseline", "baseline.csv"), 4)
    allowed = check("--baseline", "baseline.csv", "--allow-mismatch")
    assert allowed.returncode == 0 and "Mismatch" in allowed.stdout


def test_other_conditions_end_with_4_unless_allowed(gate: Path, check: Check) -> None:
    for path, limit, unit in ((gate / "baseline.json", 512, "tokens"), (gate / CANDIDATE, 256, "words")):
        document = {"schema_version": 1, "length_unit": unit, "decode": {"max_tokens": limit}, "tasks": {}}
        path.with_suffix(".json").write_text(json.dumps(document))
    assert "token limit (decode.max_tokens)" in sentence(check("--baseline", "baseline.csv"), 4)
    answer = check("--baseline", "baseline.csv", "--allow-mismatch", "--json", "--strict")
    result = json.loads(answer.stdout)
    assert any("512" in text and "256" in text for text in result["mismatches"])
    found = {each["criterion"]: each for each in result["benchmarks"][0]["criteria"]}
    assert found["tokens"]["verdict"] == "INCONCLUSIVE" and found["tokens"]["observed"] is None, "words over tokens"
    assert found["accuracy"]["verdict"] == "PASS" and answer.returncode == 3


def test_a_required_benchmark_that_is_missing_ends_with_4(gate: Path, check: Check) -> None:
    policy = gate / "policy.yaml"
    policy.write_text(policy.read_text().replace("benchmarks:\n", 'benchmarks:\n  "gsm*": {required: true}\n'))
    assert "gsm*: required by policy.yaml" in sentence(check("--baseline", "baseline.csv"), 4)


def test_a_crash_ends_with_70(gate: Path, check: Check) -> None:
    (gate / "policy.yaml").write_text("[" * 20_000)  # deeper than the YAML reader can go
    assert "This is a bug" in sentence(check("--baseline", "baseline.csv"), 70)


def test_ctrl_c_ends_with_130(gate: Path) -> None:
    os.mkfifo("waits.yaml")
    words = command("--baseline", "baseline.csv", "--policy", "waits.yaml")
    child = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    descriptor = writing_end(gate / "waits.yaml")
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=60)
    os.close(descriptor)
    assert child.returncode == 130 and error.startswith("Error: Interrupted")


def writing_end(pipe: Path) -> int:
    """A descriptor, as soon as the command has opened the pipe and waits for its content."""
    for _ in range(600):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the command never opened the pipe")


def test_a_revision_is_read_from_git(gate: Path, check: Check) -> None:
    assert "not a git repository" in sentence(check("--baseline", "main"), 4)
    git(gate, "init", "-q", "-b", "main")
    git(gate, "add", "-A")
    git(gate, "commit", "-q", "-m", "start")
    write_table(gate / CANDIDATE, {"toy": 100})
    answer = check("--baseline", "main")
    assert answer.returncode == 1 and f"main:{CANDIDATE}" in answer.stdout
    assert check("--baseline", "HEAD:baseline.csv").returncode == 1
    assert "no revision" in sentence(check("--baseline", "gone:baseline.csv"), 4)
    elsewhere = gate.parent / f"{gate.name}.csv"
    write_table(elsewhere, {"toy": 40})
    assert "main:PATH" in sentence(check("--baseline", "main", "--candidate", str(elsewhere)), 2)
    assert check("--baseline", "main", "--candidate", "baseline.csv").returncode == 0
    (gate / "main").write_text("")
    assert "write ./main" in sentence(check("--baseline", "main"), 2)


def test_it_works_outside_a_checkout_with_files_alone(gate: Path, check: Check) -> None:
    (gate / "params.yaml").unlink()
    files = ["--baseline", "baseline.csv", "--candidate", CANDIDATE, "--policy", "policy.yaml"]
    assert check(*files).returncode == 0
    assert "--policy FILE" in sentence(check(*files[:4]), 4)


def test_json_on_standard_output_is_all_there_is(gate: Path, check: Check) -> None:
    answer = check("--baseline", "baseline.csv", "--json", "--strict", GITHUB_ACTIONS="true")
    result = json.loads(answer.stdout)
    assert result["schema_version"] == 1
    assert (result["verdict"], result["exit_code"], result["strict"]) == ("PASS", 0, True)
    assert [each["name"] for each in result["benchmarks"]] == ["toy"]


def test_the_workflow_and_the_page_use_options_that_exist() -> None:
    workflow = read_yaml(ROOT / ".github" / "workflows" / "gate.yml")
    runs = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert any("tldr check --baseline baselines/tiny.csv" in text for text in runs)
    options = {name for parameter in check_command.params for name in parameter.opts}
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    for text in [*runs, *re.findall(r"tldr check .*", page)]:
        for line in re.findall(r"tldr check .*", text):
            assert set(re.findall(r" (--[a-z-]+)", line)) <= options, line


def test_no_package_that_costs_seconds_is_imported_for_the_help() -> None:
    code = "import sys, stages.cli.check; print(*({'numpy', 'scipy', 'rich', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
