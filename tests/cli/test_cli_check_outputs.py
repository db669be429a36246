"""What `tldr check` writes: JUnit XML, Markdown, JSON, annotations; hostile names; outputs that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

from stages.__main__ import main
from stages._errors import StageFailed, UserError
from stages.cli._gate_end import Ending, Sinks, Unusable
from tests.cli.test_cli_check import CANDIDATE, HEADER, command, environment, gate, write_table

__all__ = ["gate"]
HOSTILE = 'a|b <i>&"\x1b[31m]]> @who ::error::%0A, x:y *b* `c` é'


@pytest.fixture(autouse=True)
def no_github(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "TLDR_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **changes: str) -> tuple[int, str, str]:
    """In this process: exit code, standard output, standard error."""
    words = ["check", "--baseline", "baseline.csv", *arguments]
    answer = CliRunner().invoke(main, words, prog_name="tldr", env={"COLUMNS": "200", **changes})
    return answer.exit_code, answer.stdout, answer.stderr


def write_pair(root: Path, **wrong: tuple[int, int]) -> None:
    """Wrong answers before and after, per task."""
    write_table(root / "baseline.csv", {task: before for task, (before, _) in wrong.items()})
    write_table(root / CANDIDATE, {task: after for task, (_, after) in wrong.items()})


def test_junit_has_a_case_per_benchmark_and_criterion(gate: Path) -> None:
    write_pair(gate, toy=(40, 40), mmlu=(40, 120), aime=(40, 50))
    assert run("--junit", "out/gate.xml")[0] == 1
    suite = ElementTree.parse("out/gate.xml").getroot().find("testsuite")
    assert suite is not None
    cases = {(case.get("classname"), case.get("name")): case for case in suite.iter("testcase")}
    assert len(cases) == 4 + 2 + 4
    assert cases["off_domain.mmlu", "accuracy"].find("failure") is not None
    assert cases["supporting.aime", "accuracy"].find("skipped") is not None
    assert len(cases["critical.toy", "accuracy"]) == 0
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("10", "1", "1")


def test_an_advisory_failure_is_shown_and_skipped(gate: Path) -> None:
    policy = gate / "policy.yaml"
    policy.write_text(policy.read_text().replace("benchmarks:\n", "benchmarks:\n  rough: {tier: advisory}\n"))
    write_pair(gate, toy=(40, 40), rough=(40, 200))
    code, shown, _ = run("--junit", "gate.xml", GITHUB_ACTIONS="true")
    assert code == 0 and "FAIL" in shown
    text = (gate / "gate.xml").read_text()
    assert "<failure" not in text and "FAIL (advisory)" in text
    assert "::warning title=rough::FAIL (advisory)" in shown and "::error" not in shown


def test_json_and_markdown_say_the_same(gate: Path) -> None:
    write_pair(gate, toy=(40, 120), mmlu=(40, 40))
    assert run("--json", "gate.json", "--markdown", "gate.md")[0] == 1
    result = json.loads((gate / "gate.json").read_text())
    assert (result["verdict"], result["exit_code"]) == ("FAIL", 1)
    (accuracy,) = (each for each in result["benchmarks"][0]["criteria"] if each["criterion"] == "accuracy")
    assert accuracy["observed"] == pytest.approx(-0.2) and accuracy["verdict"] == "FAIL"
    assert accuracy["bounds"][0] < -0.2 < accuracy["bounds"][1] < accuracy["limit"] == -0.02
    text = (gate / "gate.md").read_text()
    assert text.startswith("**FAIL: ") and "| toy | critical | accuracy |" in text
    assert f"{100 * accuracy['observed']:+.2f}" in text


def test_a_benchmark_that_the_candidate_lacks_is_shown_and_undecided(gate: Path) -> None:
    write_table(gate / "baseline.csv", {"toy": 40, "gone": 40})
    write_table(gate / CANDIDATE, {"toy": 40, "new": 40})
    code, shown, _ = run("--strict", "--junit", "gate.xml")
    assert code == 3
    assert "not measured" in shown and "new is only in the candidate" in shown
    assert "the candidate does not" in (gate / "gate.xml").read_text()


def test_hostile_names_break_no_format(gate: Path, tmp_path: Path) -> None:
    rows = "".join(f'"{HOSTILE.replace(chr(34), chr(34) * 2)}",,q{i},0,0,10,0,0\n' for i in range(400))
    write_table(gate / "baseline.csv", {"toy": 40})
    (gate / CANDIDATE).write_text((gate / "baseline.csv").read_text() + rows, encoding="utf-8")
    good = rows.replace(",0,0,10,0,0", ",0,1,10,0,0")
    (gate / "baseline.csv").write_text((gate / "baseline.csv").read_text() + good, encoding="utf-8")
    summary = tmp_path / "summary.md"
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    code, shown, _ = run("--junit", "gate.xml", "--markdown", "gate.md", **github)
    assert code == 1
    assert "\x1b" not in shown and "\\x1b[31m" in shown
    names = {case.get("classname") for case in ElementTree.parse("gate.xml").iter("testcase")}
    assert f"critical.{HOSTILE.replace(chr(27), chr(92) + 'x1b')}" in names
    table = [line for line in (gate / "gate.md").read_text().splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "<i>" not in table[-1].replace("\\<", "") and "@" not in table[-1]
    (line,) = (line for line in shown.splitlines() if line.startswith("::error"))
    title = line.removeprefix("::error title=").partition("::")[0]
    assert title.endswith("%3A%3Aerror%3A%3A%250A%2C x%3Ay *b* `c` é") and "," not in title
    assert summary.read_text() == (gate / "gate.md").read_text() + "\n"


def test_an_error_is_in_the_files_too(gate: Path) -> None:
    (gate / CANDIDATE).write_text(HEADER)
    for name in ("gate.xml", "gate.md", "gate.json"):
        (gate / name).write_text("PASS of an earlier run")
    files = ["--junit", "gate.xml", "--markdown", "gate.md", "--json", "gate.json"]
    code, shown, error = run(*files, GITHUB_ACTIONS="true")
    assert code == 4 and error.startswith("Error: ")
    assert shown.startswith("::error title=tldr check::ERROR: nothing was decided.")
    assert ElementTree.parse("gate.xml").getroot().get("errors") == "1"
    assert (gate / "gate.md").read_text().startswith("**ERROR")
    result = json.loads((gate / "gate.json").read_text())
    assert (result["verdict"], result["exit_code"], result["benchmarks"]) == ("ERROR", 4, [])


@pytest.mark.parametrize(("wrong", "code"), [(120, 1), (40, 4)])
@pytest.mark.parametrize("place", ["/dev/full", "policy.yaml/gate.xml", "."])
def test_an_output_that_cannot_be_written_hides_no_regression(gate: Path, wrong: int, code: int, place: str) -> None:
    write_table(gate / CANDIDATE, {"toy": wrong})
    found, shown, error = run("--junit", place, "--json", "gate.json")
    assert found == code
    assert error.startswith(f"Error: {place} could not be written")
    assert "toy" in shown and json.loads((gate / "gate.json").read_text())["benchmarks"]
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(("wrong", "closed", "full"), [(120, 1, 1), (40, 0, 4)])
def test_a_broken_standard_output_hides_no_regression(gate: Path, wrong: int, closed: int, full: int) -> None:
    """Closed: its reader has left, such as `head`. Full: the disk that it is redirected to."""
    write_table(gate / CANDIDATE, {"toy": wrong})
    words = command("--baseline", "baseline.csv")
    reading, writing = os.pipe()
    os.close(reading)
    for stdout, code in ((writing, closed), (os.open("/dev/full", os.O_WRONLY), full)):
        github = environment(GITHUB_ACTIONS="true")
        done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, env=github, check=False, timeout=120)
        os.close(stdout)
        assert done.returncode == code, done.stderr


def test_a_terminal_without_the_letters_shows_their_codes(gate: Path) -> None:
    write_pair(gate, é=(40, 40))
    done = subprocess.run(
        command("--baseline", "baseline.csv"),
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\xe9" in done.stdout


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which every other command ends with code 1."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 70),
        (OutOfMemoryError("CUDA"), 70),
        (OSError(28, os.strerror(28)), 70),
        (KeyError("toy"), 70),
        (AssertionError(), 70),
        (RecursionError(), 70),
        (SystemExit(1), 70),
        (click.Abort(), 70),
        (EOFError(), 70),
        (BrokenPipeError(32, "x"), 70),
        (StageFailed("No."), 70),
        (UserError("No."), 2),
        (Unusable("No."), 4),
        (PermissionError(13, "x", "a.csv"), 4),
        (ModuleNotFoundError("No.", name="pyarrow"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_no_error_reads_as_a_regression(error: BaseException, code: int, tmp_path: Path) -> None:
    sinks = Sinks(junit=None, json=str(tmp_path / "gate.json"), markdown=None)
    with pytest.raises(click.exceptions.Exit) as ending, Ending(sinks):
        raise error
    assert ending.value.exit_code == code
    if code != 130:
        assert json.loads((tmp_path / "gate.json").read_text())["verdict"] == "ERROR"
