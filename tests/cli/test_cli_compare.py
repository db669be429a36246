"""`tldr compare`: what it prints, agreement with a script that shares no code, refusals, and several training runs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.__main__ import main
from tests.paths import SHARED_DATA

HEADER = "task,group,question_id,sample_index,correct,num_tokens,truncated,no_think\n"
NUM_QUESTIONS = 60
Compare = Callable[..., Result]


@pytest.fixture
def compare(checkout: Path) -> Compare:
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("resamples: 10000", "resamples: 1000"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["compare", *arguments], prog_name="tldr")

    return run


def write_table(path: Path, *, tokens: int, losses: int = 0, tasks: tuple[str, ...] = ("a", "b")) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{task},,q{q},{sample},{int(q >= losses)},{tokens + 3 * (q % 7) + sample},0,{int(q % 5 == 0)}\n"
        for task in tasks
        for q in range(NUM_QUESTIONS)
        for sample in range(2)
    ]
    path.write_text(HEADER + "".join(rows))
    return str(path)


def write_conditions(table: str, **changes: Any) -> None:
    prompts = {
        task: {"version": "1", "prompts": "p", "num_questions": NUM_QUESTIONS, "samples": 2} for task in ("a", "b")
    }
    decode = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 640, "repetition": None}
    conditions = {
        "schema_version": 1,
        "model": "m",
        "tokenizer": "t",
        "decode": decode,
        "verifier": "exact",
        "engine": "hf",
        "seed": 1,
        "length_unit": "tokens",
        "tasks": prompts,
        **changes,
    }
    Path(table).with_suffix(".json").write_text(json.dumps(conditions))


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_figures_agree_with_a_script_that_shares_no_code(compare: Compare, tmp_path: Path) -> None:
    base, new = write_table(tmp_path / "base.csv", tokens=100), write_table(tmp_path / "new.csv", tokens=40, losses=6)
    found = report(compare(base, new, "--json"))
    sides = [list(csv.DictReader(io.StringIO(Path(path).read_text()))) for path in (base, new)]
    totals = [sum(int(row["num_tokens"]) for row in side) for side in sides]
    rights = [sum(int(row["correct"]) for row in side) / len(side) for side in sides]
    assert found["schema_version"] == 2
    assert found["token_reduction"]["micro"] == pytest.approx(1 - totals[1] / totals[0])
    assert found["accuracy_difference"]["value"] == pytest.approx(rights[1] - rights[0]) == pytest.approx(-0.1)
    by_task = [[sum(int(r["num_tokens"]) for r in side if r["task"] == task) for side in sides] for task in "ab"]
    assert found["token_reduction"]["macro"] == pytest.approx(sum(1 - after / before for before, after in by_task) / 2)
    for name in ("token_reduction", "accuracy_difference"):
        low, high = found[name]["ci"]
        assert low < found[name]["micro" if name == "token_reduction" else "value"] < high
    assert list(found["tasks"]) == ["a", "b"]
    assert found["names"] == {"baseline": base, "candidate": [new]}
    assert (found["confidence"], found["resamples"], found["length_unit"]) == (0.95, 1000, "tokens")


def test_terminal_markdown_and_csv_say_the_same(compare: Compare, tmp_path: Path) -> None:
    base, new = write_table(tmp_path / "base.csv", tokens=100), write_table(tmp_path / "new.csv", tokens=40, losses=6)
    found = report(compare(base, new, "--json"))
    headline = f"{found['verdict']}: {100 * found['token_reduction']['micro']:.1f} % fewer tokens"
    assert compare(base, new).stdout.startswith(headline)
    assert compare(base, new, "--markdown").stdout.startswith(f"**{headline}")
    rows = list(csv.DictReader(io.StringIO(compare(base, new, "--csv").stdout)))
    assert float(rows[-1]["token_reduction_micro"]) == found["token_reduction"]["micro"]
    assert [row["row"] for row in rows] == ["a", "b", "overall"]


def test_options_replace_params(compare: Compare, tmp_path: Path) -> None:
    base, new = write_table(tmp_path / "base.csv", tokens=100), write_table(tmp_path / "new.csv", tokens=40, losses=6)
    strict = report(compare(base, new, "--json", "--margin", "0.01"))
    lax = report(
        compare(base, new, "--json", "--margin", "0.4", "--confidence", "0.5", "--alpha", "0.2", "--seed", "5")
    )
    assert (strict["verdict"], lax["verdict"]) == ("FAIL", "PASS")
    assert (lax["margin"], lax["confidence"], lax["alpha"], lax["seed"]) == (0.4, 0.5, 0.2, 5)
    wide, narrow = (found["accuracy_difference"]["ci"] for found in (strict, lax))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_flips_are_listed(compare: Compare, tmp_path: Path) -> None:
    base, new = (
        write_table(tmp_path / "base.csv", tokens=100, losses=2),
        write_table(tmp_path / "new.csv", tokens=40, losses=5),
    )
    flips = report(compare(base, new, "--json", "--flips"))["flips"]
    assert {(flip["task"], flip["question_id"]) for flip in flips} == {(t, f"q{i}") for t in "ab" for i in (2, 3, 4)}
    assert all((flip["before"], flip["after"], flip["kind"]) == (2, 0, "lost") for flip in flips)
    assert compare(base, new, "--flips").stdout.count("2 of 2") == 6
    assert "No question changed" in compare(base, base, "--flips").stdout


def test_different_conditions_are_refused_by_name_and_printed_where_allowed(compare: Compare, tmp_path: Path) -> None:
    base, new = write_table(tmp_path / "base.csv", tokens=100), write_table(tmp_path / "new.csv", tokens=40)
    write_conditions(base)
    cut = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 320, "repetition": None}
    for changes, name in (({"decode": cut}, "token limit"), ({"tokenizer": "other"}, "tokenizer")):
        write_conditions(new, **changes)
        refused = compare(base, new)
        assert refused.exit_code == 2
        assert name in refused.stderr
        assert "--allow-mismatch" in refused.stderr
        assert refused.stderr.count("\n") == 1
        allowed = compare(base, new, "--allow-mismatch")
        assert "WARNING: compared in spite of a mismatch" in allowed.stdout
        assert name in report(compare(base, new, "--allow-mismatch", "--json"))["mismatches"][0]
    write_conditions(new)
    assert report(compare(base, new, "--json"))["mismatches"] == []


def test_words_and_tokens_have_no_ratio_whatever_is_allowed(compare: Compare, tmp_path: Path) -> None:
    rows = [{"id": i, "problem": "p", "gold": "1", "responses": ["so it is 1"], "correct": [True]} for i in range(9)]
    for name, more in (("words", {}), ("tokens", {"num_tokens": [7]})):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    refused = compare(str(tmp_path / "tokens.jsonl"), str(tmp_path / "words.jsonl"), "--allow-mismatch")
    assert (refused.exit_code, "no ratio" in refused.stderr) == (2, True)


def test_other_questions_are_named_before_their_prompts(compare: Compare, tmp_path: Path) -> None:
    row = {"problem": "p", "gold": "1", "responses": ["1"], "correct": [True], "num_tokens": [3]}
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": name, **row}) + "\n")
    refused = compare(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    assert (refused.exit_code, "no question in common" in refused.stderr) == (2, True)


def test_what_cannot_be_paired_is_refused_in_one_sentence(compare: Compare, tmp_path: Path) -> None:
    base = write_table(tmp_path / "base.csv", tokens=100)
    other = write_table(tmp_path / "other.csv", tokens=40, tasks=("c",))
    part = write_table(tmp_path / "part.csv", tokens=40, tasks=("a",))
    nowhere = compare(base, other, "--allow-mismatch")
    assert (nowhere.exit_code, "no task in common" in nowhere.stderr) == (2, True)
    refused = compare(base, part)
    assert (refused.exit_code, "only in the baseline" in refused.stderr) == (2, True)
    assert report(compare(base, part, "--allow-mismatch", "--json"))["mismatches"] == ["task b is only in the baseline"]
    missing = compare(base, str(tmp_path / "none.csv"))
    assert (missing.exit_code, "does not exist" in missing.stderr) == (2, True)
    for result in (nowhere, refused, missing):
        assert result.stderr.count("\n") == 1


def test_several_runs_become_one_table(compare: Compare, tmp_path: Path) -> None:
    base = write_table(tmp_path / "base.csv", tokens=100)
    runs = [write_table(tmp_path / f"run{i}.csv", tokens=40 + 10 * i, losses=i) for i in range(3)]
    more = [argument for run in runs[1:] for argument in ("--candidate", run)]
    found = report(compare(base, runs[0], *more, "--json"))
    assert list(found["runs"]) == found["names"]["candidate"] == runs
    assert found["spread"]["num_runs"] == 3
    assert found == report(compare(base, *(a for run in runs for a in ("--candidate", run)), "--json"))
    text = compare(base, runs[0], *more, "--markdown").stdout
    assert "mean of 3 runs" in text
    assert f"(sd {100 * found['spread']['token_reduction_micro']['sd']:.1f})" in text
    assert "training runs pooled" in text
    twice = compare(base, runs[0], "--candidate", runs[0])
    assert (twice.exit_code, "given twice" in twice.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give a baseline and a candidate"),
        (("x.csv",), "Give a baseline and a candidate"),
        (("x", "y", "z"), "--candidate options"),
        (("x", "y", "--json", "--csv"), "exclude each other"),
        (("x", "y", "--baseline-label", "original"), "published means"),
    ],
)
def test_usage(compare: Compare, arguments: tuple[str, ...], said: str) -> None:
    result = compare(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_bad_numbers_name_the_option(compare: Compare, tmp_path: Path) -> None:
    table = write_table(tmp_path / "base.csv", tokens=100)
    for option, value in (
        ("margin", "1.5"),
        ("alpha", "0.7"),
        ("confidence", "1"),
        ("resamples", "3"),
        ("margin", "nan"),
    ):
        result = compare(table, table, f"--{option}", value)
        assert (result.exit_code, f"correct --{option}" in result.stderr) == (2, True), result.output


def test_the_table_of_another_revision_needs_no_remote(compare: Compare, checkout: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=checkout, check=True, capture_output=True)

    path = "results/questions/candidate.csv"
    write_table(checkout / path, tokens=100)
    if not (checkout / ".git").exists():
        git("init", "-q", "-b", "main")
    git("add", "-f", path)
    git("-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "before")
    git("tag", "before")
    write_table(checkout / path, tokens=40)
    found = report(compare("--rev", "before", "--json"))
    assert found["token_reduction"]["micro"] > 0.4
    assert found == report(compare(f"before:{path}", path, "--json"))
    assert report(compare(path, "--rev", "before", "--json")) == found
    unknown = compare("--rev", "nowhere")
    assert (unknown.exit_code, "no revision nowhere" in unknown.stderr) == (2, True)


def test_answers_of_another_harness_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON Lines with verdicts and without token counts: words, and the output says so; numbers are tldr's own."""
    for name, words in (("before", 20), ("after", 5)):
        rows = [
            {"id": i, "problem": f"1+{i}", "gold": str(i + 1), "responses": ["so " * words + f"\\boxed{{{i + 1}}}"]}
            | {"correct": [True]}
            for i in range(40)
        ]
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["compare", "before.jsonl.gz", "after.jsonl.gz", "--json", "--resamples", "200"])
    found = report(result)
    assert found["length_unit"] == "words"
    assert found["token_reduction"]["micro"] == pytest.approx(1 - 6 / 21)
    assert found["margin"] == 0.01


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data, the logs of the authors' models")
def test_real_logs_agree_with_a_script(compare: Compare) -> None:
    paths = [SHARED_DATA / "r1_logs" / f"{name}-7b_amc23.jsonl.gz" for name in ("static", "tldr")]
    found = report(compare(*map(str, paths), "--json"))
    accuracies, words = [], []
    for path in paths:
        with gzip.open(path, "rt") as stream:
            rows = [json.loads(line) for line in stream]
        accuracies.append({row["id"]: sum(row["correct"]) / len(row["correct"]) for row in rows})
        words.append(sum(len(text.split()) for row in rows for text in row["responses"]))
    differences = [accuracies[1][question] - accuracies[0][question] for question in accuracies[0]]
    assert found["accuracy_difference"]["value"] == pytest.approx(sum(differences) / 40)
    assert found["token_reduction"]["micro"] == pytest.approx(1 - words[1] / words[0])
