"""`tldr grade`: counts, disagreements with what was read on both sides, the JSON contract, bad input, Ctrl-C."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.__main__ import main

ROW = {"id": "a", "problem": "Two?", "gold": "2", "responses": [r"\boxed{2}", r"</think> It is \boxed{3}."]}
VERDICTS = {"correct": [True, True]}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["grade", *map(str, words)], prog_name="tldr")


def test_json_has_the_counts_and_every_disagreement(tmp_path: Path) -> None:
    unread = {"id": "b", "problem": "p", "gold": "$ $", "responses": ["1", "1"], "correct": [0, 1]}
    answer = call(write(tmp_path / "log.jsonl", ROW | VERDICTS, unread), "--json", "--processes", "1")
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    counts = {"responses": 4, "correct": 1, "agree": 1, "disagree": 3, "verifier_errors": 2}
    assert report == {"schema_version": 1, **counts, "disagreements": report["disagreements"]}
    assert report["disagreements"][0] == {
        "line": 1,
        "task": None,
        "id": "a",
        "sample_index": 1,
        "gold": "2",
        "gold_read": "2",
        "answer": "3",
        "ours": False,
        "recorded": True,
    }
    assert [row["ours"] for row in report["disagreements"][1:]] == [None, None]


def test_without_verdicts_there_is_nothing_to_agree_with(tmp_path: Path) -> None:
    packed = tmp_path / "log.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    report = json.loads(call(packed, "--json").stdout)
    assert (report["correct"], report["agree"], report["disagree"]) == (1, None, None)
    assert "no verdicts to compare with" in call(packed).stdout


def test_a_person_reads_counts_and_disagreements(tmp_path: Path) -> None:
    long = ROW | {"gold": "2+" * 100 + "2", "responses": ["\\boxed{3}\x1b[2J", "\\boxed{\\text{x\x1b}}"], **VERDICTS}
    answer = call(write(tmp_path / "log.jsonl", ROW | VERDICTS | {"id": "c"}, long))
    assert "4 answers, 1 correct (25.0%)\n1 agree with the verdicts of the file (25.00%), 3 do not" in answer.stdout
    assert (
        "line 1, c, answer 1: ours wrong, the file's right\n    gold    2    read as  2\n    answer  3\n"
        in answer.stdout
    )
    assert max(map(len, answer.stdout.splitlines())) < 150 and "\x1b" not in answer.stdout


def test_a_cut_answer_is_wrong_and_the_exact_verifier_can_be_asked_for(tmp_path: Path) -> None:
    cut = ROW | {"finish_reasons": ["length", "stop"]}
    assert json.loads(call(write(tmp_path / "cut.jsonl", cut), "--json").stdout)["correct"] == 0
    tiny = ROW | {"responses": ["a 1 + 1 = 2 ; . </think> answer 2", r"\boxed{2}"]}
    assert (
        json.loads(call(write(tmp_path / "tiny.jsonl", tiny), "--json", "--verifier", "exact").stdout)["correct"] == 1
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(ROW) + "\n[1]\n", "line 2"),
        (json.dumps(ROW | {"correct": [True]}), "line 1, field correct"),
        (json.dumps({"id": 1, "problem": "p", "responses": ["x"]}), "line 1, field gold"),
        ("", "is empty"),
        (None, "does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    answer = call(path)
    assert answer.exit_code == 2 and answer.stdout == ""
    assert answer.stderr.startswith(f"Error: {path}") and message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """While the worker is in a computation that does not end by itself."""
    endless = ROW | {"responses": [r"\boxed{9^{9^{9^9}}}"] * 20}
    command = [sys.executable, "-m", "stages", "grade", str(write(tmp_path / "log.jsonl", endless))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text():
        time.sleep(0.05)
    time.sleep(1.0)  # for the worker to start
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors.startswith("Error: Interrupted") and "Traceback" not in errors
