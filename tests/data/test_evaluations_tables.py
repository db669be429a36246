"""Question tables as runs: from the workspace, from git revisions, with the conditions beside them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stages._errors import UserError
from stages._io import file_digest
from stages.data.evaluations import ReadSettings, Run, open_run
from stages.evidence.questions import COLUMNS, QuestionRow, write_questions

SETTINGS = ReadSettings(verifier="exact", processes=1)
ROWS = [
    QuestionRow("tiny", "length-1", "q1", 0, True, 31, False, False),
    QuestionRow("tiny", "length-1", "q1", 1, False, 640, True, False),
    QuestionRow("tiny", "length-2", "q2", 1, False, 12, False, True),
    QuestionRow("tiny", "length-2", "q2", 0, True, 11, False, False),
]
HEADER = ",".join(COLUMNS)
STATED = {
    "schema_version": 1,
    "length_unit": "tokens",
    "model": "m",
    "tokenizer": "t",
    "decode": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 640, "repetition": None},
    "verifier": "exact",
    "engine": "hf",
    "seed": 1,
    "tasks": {"tiny": {"version": "1.0", "prompts": "p", "num_questions": 2, "samples": 2}},
}


def opened(spec: Path | str, root: Path | None = None, rev: str | None = None) -> Run:
    return open_run(str(spec), root=root, rev=rev, settings=SETTINGS)


def table(path: Path, rows: list[QuestionRow] = ROWS, **stated: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_questions(path, rows)
    if stated:
        path.with_suffix(".json").write_text(json.dumps(STATED | stated))
    return path


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two commits, tagged first and second, of results/questions/base.csv; the workspace has a third content."""
    root = tmp_path / "checkout"
    path = table(root / "results" / "questions" / "base.csv", ROWS[:2], seed=1, tasks={})
    git(root, "init", "--quiet")
    for name, rows in (("first", ROWS[:2]), ("second", ROWS)):
        table(path, rows, seed=len(rows), tasks={})
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", name)
        git(root, "tag", name)
    write_questions(path, ROWS[2:])
    return root


def test_the_table_is_read_with_the_conditions_beside_it(tmp_path: Path) -> None:
    path = table(tmp_path / "base.csv", table=None)
    run = opened(path)
    mine = run.tables["tiny"]
    assert (mine.question_ids, mine.groups) == (("q1", "q2"), ("length-1", "length-2"))
    assert mine.tokens.tolist() == [[31, 640], [11, 12]]
    assert mine.correct.tolist() == [[True, False], [True, False]]
    assert run.conditions.decode_of("tiny")["max_tokens"] == 640
    assert (run.conditions.verifier_of("tiny"), run.conditions.versions, run.conditions.prompts) == (
        *("exact", {"tiny": "1.0"}, {"tiny": "p"}),
    )
    assert run.texts([("tiny", "q1", 0)]) == {}
    path.with_suffix(".json").unlink()
    bare = opened(path).conditions
    assert (bare.length_unit, bare.decode, bare.tokenizer, bare.prompts) == ("tokens", None, None, {})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"table": "0" * 16}, r"base\.json describes another table than \S+base\.csv is now"),
        (
            {"tasks": {"tiny": {"num_questions": 3}}},
            r"base\.json says num_questions 3 for task tiny, but \S+base\.csv has 2",
        ),
        ({"tasks": {"tiny": {"samples": 1}}}, r"base\.json says samples 1 for task tiny, but \S+base\.csv has 2"),
        ({"schema_version": 2}, r"base\.json has schema_version 2; this version reads 1"),
        ({"length_unit": "characters"}, r"base\.json, field length_unit: neither tokens nor words"),
        ({"decode": 3}, r"base\.json, field decode: 3 is of the wrong kind"),
        ({"tasks": ["tiny"]}, r"base\.json, field tasks: not an object"),
    ],
)
def test_conditions_of_another_table_are_refused(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    path = table(tmp_path / "base.csv", **stated)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_a_file_beside_a_table_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "base.csv", table=None)
    for content in ("{", "[]", "{}", '{"accuracy": 1}'):
        path.with_suffix(".json").write_text(content)
        with pytest.raises(UserError, match=r"base\.json does not hold the conditions of a run.*remove .*base\.json\."):
            opened(path)


def test_the_digest_of_the_right_table_is_accepted(tmp_path: Path) -> None:
    path = table(tmp_path / "base.csv")
    assert opened(table(path, table=file_digest(path))).conditions.seed == 1


def test_revisions_are_read_without_touching_the_workspace(checkout: Path) -> None:
    path = "results/questions/base.csv"
    assert opened(f"first:{path}", checkout).tables["tiny"].question_ids == ("q1",)
    assert opened(path, checkout, rev="second").tables["tiny"].question_ids == ("q1", "q2")
    assert opened(str(checkout / path), checkout, rev="HEAD~1").tables["tiny"].question_ids == ("q1",)
    assert [opened(f"{rev}:{path}", checkout).conditions.seed for rev in ("first", "main")] == [2, 4]
    assert (opened(path, checkout, rev="first").name, opened(f"main:{path}", checkout).name) == (
        *(f"first:{path}", f"main:{path}"),
    )
    (checkout / path).with_suffix(".json").unlink()
    assert opened(checkout / path).tables["tiny"].question_ids == ("q2",)


def test_a_revision_reads_also_where_the_checkout_is_a_folder_of_a_larger_repository(checkout: Path) -> None:
    assert opened("questions/base.csv", checkout / "results", rev="first").tables["tiny"].question_ids == ("q1",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gone:results/questions/base.csv", r"git knows no revision gone here; fetch it"),
        (
            "main:results/questions/gone.csv",
            r"revision main holds no file results/questions/gone\.csv; only files that",
        ),
        ("main:results/questions.csv", r"revision main holds no file"),
        ("main:/etc/passwd.csv", r"revision main holds no file"),
        ("--all:results/a.csv", r"--all is no git revision"),
        ("main:results", r"main:results is of no kind that can be read"),
    ],
)
def test_what_git_does_not_hold_is_one_sentence(checkout: Path, spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        opened(spec, checkout)
    assert str(caught.value).startswith(spec)
    assert "\n" not in str(caught.value)


def test_outside_a_repository_git_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"git cannot read revision main \(not a git repository"):
        opened("main:results/questions/base.csv", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (
            b"task,accuracy,tokens\na,1,2\n",
            "line 1: the header is 'task,accuracy,tokens', but that of a question table is",
        ),
        (bytes(range(256)), "line 1: the header is"),
        (HEADER.encode() + b"\n", "line 2: no rows"),
        (
            HEADER.encode() + b"\nt,g,q,0,1,30,0,0\nt,g,p,0,1,30,0,0\nt,g,q,0,1,30,0,0\n",
            "line 4, field sample_index: .*on line 2",
        ),
        (HEADER.encode() + b"\nt,g,q,0,1,30,0,0\nt,g,p,0,1,nan,0,0\n", "line 3, field num_tokens"),
        (HEADER.encode() + b"\nt,g,q,0,1,30,0,0\nt,g,p,1,1,30,0,0\n", "sample_index: task 't', question 'p' has"),
        (HEADER.encode() + b"\nt,g,q\xff,0,1,30,0,0\n", "not UTF-8"),
        (HEADER.encode() + b'\nt,g,"q', "not CSV"),
    ],
)
def test_a_malformed_table_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_of_results_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for name, message in (
        ("gone.csv", r"gone\.csv does not exist"),
        ("gone", "gone does not exist; name a question table"),
        ("gone/there.jsonl", r"there\.jsonl does not exist"),
        ("folder.csv", r"folder\.csv holds neither responses\.parquet"),
        ("notes.txt", r"notes\.txt is of no kind that can be read"),
        ("x" * 300 + ".csv", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path / name)
