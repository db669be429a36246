"""`tldr report` and `tldr status`: what they print, and the sentence where results are missing or malformed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stages.__main__ import main

Tldr = Callable[..., "subprocess.CompletedProcess[str]"]
HEADER = "task,group,question_id,sample_index,correct,num_tokens,truncated,no_think\n"
NUM_QUESTIONS = 400


def write_results(root: Path, *, short_tokens: int = 40) -> None:
    """Two models, two answers per question; the second is as accurate and writes `short_tokens` instead of 100."""
    folder = root / "results" / "questions"
    folder.mkdir(parents=True, exist_ok=True)
    for name, tokens in (("base", 100), ("candidate", short_tokens)):
        rows = [
            f"tiny,length-{q % 2 + 1},q{q},{sample},{int((q + 7 * sample) % 25 != 0)},{tokens + q % 5},0,0\n"
            for q in range(NUM_QUESTIONS)
            for sample in range(2)
        ]
        (folder / f"{name}.csv").write_text(HEADER + "".join(rows))
    place = {"container_engine": "host", "container_device": "cpu", "container_image": None}
    train = {"selected_step": 32, "selection_fallback": 0} | place
    for name, result in (("train", train), ("base", place), ("metrics", place)):
        (root / "results" / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def results(checkout: Path) -> Path:
    write_results(checkout)
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("resamples: 10000", "resamples: 1000"))
    return checkout


@pytest.fixture
def here() -> Tldr:
    """As `tldr`, in this process: the comparison is imported once."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        answer = CliRunner().invoke(main, arguments, prog_name="tldr", env=environment)
        return subprocess.CompletedProcess(arguments, answer.exit_code, answer.stdout, answer.stderr)

    return run


def as_json(tldr: Tldr, command: str = "report") -> Any:
    answer = tldr(command, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_the_json_object_has_the_promised_keys(results: Path, here: Tldr) -> None:
    report = as_json(here)
    assert report["schema_version"] == 2
    for side in ("baseline", "candidate"):
        names = {"accuracy", "mean_tokens", "truncation_rate", "no_think_rate"}
        assert names <= report[side].keys()
        assert set(report[side]["tasks"]) == {"length-1", "length-2"}
    assert report["token_reduction"]["micro"] == pytest.approx(60 / 102)
    assert {"macro", "ci"} <= report["token_reduction"].keys()
    assert report["accuracy_difference"]["value"] == 0
    assert report["verdict"] == "PASS"
    assert report["container"] == {"engine": "host", "device": "cpu", "image": "none"}
    assert report["model"]["selection_fallback"] == 0


def test_the_budget_curve_follows_its_budgets(results: Path, here: Tldr) -> None:
    curves = as_json(here)["budget_curve"]
    assert {row["budget"] for row in curves["baseline"]} == {16, 32, 64, 128, 256, 512}
    at_64 = {side: next(row for row in rows if row["budget"] == 64) for side, rows in curves.items()}
    assert (at_64["baseline"]["accuracy"], at_64["baseline"]["mean_tokens"]) == (0.0, 64.0)
    assert at_64["candidate"]["accuracy"] == pytest.approx(0.96)
    assert at_64["candidate"]["truncation_rate"] == 0.0
    path = results / "params.yaml"
    path.write_text(path.read_text().replace("  - 16\n", ""))
    assert {row["budget"] for row in as_json(here)["budget_curve"]["candidate"]} == {32, 64, 128, 256, 512}


def test_a_second_report_is_the_same_and_follows_its_inputs(results: Path, here: Tldr) -> None:
    first = as_json(here)
    assert as_json(here) == first
    write_results(results, short_tokens=80)
    assert as_json(here)["token_reduction"]["micro"] == pytest.approx(20 / 102)
    path = results / "params.yaml"
    path.write_text(path.read_text().replace("resamples: 1000", "resamples: 2000"))
    assert as_json(here)["resamples"] == 2000
    (results / ".tldr" / "report.json").write_text("{")
    assert as_json(here)["resamples"] == 2000


def test_the_table_says_where_the_model_lies(results: Path, here: Tldr) -> None:
    without = here("report", COLUMNS="80", NO_COLOR="1").stdout
    assert "artifacts/model is not in this checkout" in without
    assert "vllm serve" not in without
    (results / "artifacts" / "model").mkdir(parents=True)
    answer = here("report", COLUMNS="80", NO_COLOR="1")
    assert answer.returncode == 0, answer.stderr
    assert "vllm serve artifacts/model" in answer.stdout
    assert "Profile tiny, container engine host, device cpu, image none." in answer.stdout
    assert "\x1b" not in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 80


def test_markdown_is_a_table_with_every_row(results: Path, here: Tldr) -> None:
    answer = here("report", "--markdown")
    assert answer.returncode == 0, answer.stderr
    for name in ("length-1", "length-2", "overall"):
        assert f"| {name} |" in answer.stdout


def test_both_formats_at_once_are_a_usage_error(results: Path, here: Tldr) -> None:
    assert here("report", "--json", "--markdown").returncode == 2


def refused(here: Tldr, *arguments: str) -> str:
    answer = here(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    return answer.stderr


def test_missing_results_name_the_file_and_the_command(results: Path, here: Tldr) -> None:
    (results / "results" / "train.json").unlink()
    assert "results/train.json does not exist; run `tldr repro train`" in refused(here, "report", "--json")
    (results / "results" / "questions" / "candidate.csv").unlink()
    assert "results/questions/candidate.csv not found; run `tldr repro`" in refused(here, "report")


def test_malformed_results_name_line_and_field(results: Path, here: Tldr) -> None:
    path = results / "results" / "questions" / "candidate.csv"
    path.write_text(path.read_text().replace("q1,0,1,41", "q1,0,yes,41"))
    sentence = refused(here, "report")
    assert "candidate.csv, line 4, field correct" in sentence
    assert "tldr repro --force evaluate" in sentence


def test_models_with_other_questions_are_not_compared(results: Path, here: Tldr) -> None:
    path = results / "results" / "questions" / "candidate.csv"
    path.write_text(path.read_text().replace(",q1,", ",z1,"))
    assert "different questions" in refused(here, "report")


def test_status_needs_a_dvc_repository(checkout: Path, here: Tldr) -> None:
    assert "dvc init" in refused(here, "status")


@pytest.mark.dvc
def test_status_follows_the_stages(repository: Path, tldr: Tldr) -> None:
    (repository / "behaviour.txt").write_text("train fail")
    assert tldr("repro", "train").returncode == 1
    after = as_json(tldr, "status")
    assert after["stages"]["sample"]["state"] == "up to date"
    assert after["stages"]["train"]["partial_bytes"] == 2
    assert after["last_exit"]["exit_code"] == 1
    table = tldr("status", COLUMNS="80", NO_COLOR="1").stdout
    assert "Last stop: train, exit code 1. The toy found something wrong; look at it." in table
    assert "`tldr repro` runs what has changed" in table
    (repository / "params.yaml").write_text((repository / "params.yaml").read_text().replace("seed: 1  ", "seed: 2  "))
    assert as_json(tldr, "status")["stages"]["sample"]["state"] == "changed: seed"


@pytest.mark.dvc
def test_a_run_with_nothing_to_do_prints_the_report_and_removes_partial_work(repository: Path, tldr: Tldr) -> None:
    write_results(repository)
    assert tldr("repro").returncode == 0
    answer = tldr("repro")
    assert answer.returncode == 0, answer.stderr
    assert "Running stage" not in answer.stdout
    assert "PASS" in answer.stdout
    assert not list((repository / ".tldr" / "work").glob("*/*"))


def test_nothing_heavy_is_imported_for_a_kept_report(results: Path, here: Tldr) -> None:
    as_json(here)
    code = (
        "import sys; from stages.__main__ import main\n"
        "try: main(['report'], prog_name='tldr')\n"
        "except SystemExit: print(*({'numpy', 'scipy', 'torch', 'dvc'} & set(sys.modules)), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=results)
    assert answer.stderr.strip() == ""
