"""Problem sets from published files: which rows become problems, which go, and that the report says why."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages._errors import UserError
from stages._params import Params, check_params, read_yaml
from stages.core.answers import alternatives
from stages.data.problem_sets import answer_of, made_sets, make_sets, removed_by
from stages.data.problems import read_problems
from stages.data.sources import FILE, Sources, read_sources, task_benchmarks, wanted_files, write_lock
from tests.paths import ROOT, SHARED_DATA

BENCHMARKS = SHARED_DATA / "benchmarks"
ROLES = ("system1", "system2", "control", "test")
SHIPPED = read_sources(ROOT)
needs_benchmarks = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="needs ../shared/data/benchmarks, which is not part of the project"
)


def parameters(root: Path, tasks: list[str], **data: str) -> Params:
    document = read_yaml(ROOT / "params.yaml")
    paths = {role: f"data/math/{role}.jsonl" for role in ROLES} | data
    document["data"] |= {"verifier": "math"} | {role: {"path": path} for role, path in paths.items()}
    document["evaluate"]["tasks"] = tasks
    return check_params(document, "params.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the shipped sources and tasks, and no published file yet."""
    (tmp_path / "data" / "benchmarks").mkdir(parents=True)
    shutil.copy(ROOT / FILE, tmp_path / FILE)
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def put(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = root / SHIPPED.files[name].path
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def gsm8k(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "answer": f"Think.\n#### {answer}"}


def s1k(question: str, solution: str, kind: str = "math") -> dict[str, str]:
    return {"question": question, "solution": solution, "cot_type": kind}


def prime(number: int) -> str:
    """A question of more than sixteen words, so that n-grams decide."""
    return (
        f"Let $p$ be the prime with index {number} among all primes in order of size. Find the remainder of $p$ cubed when it "
        f"is divided by {number + 7}, and explain how you found it."
    )


@pytest.fixture
def small(root: Path) -> Path:
    """A few rows each, with every reason to leave one out."""
    put(root, "gsm8k_train", [gsm8k("How many legs have 3 cats?", "12"), gsm8k("What is 2 + 2?", "4")])
    put(
        root,
        "s1k",
        [
            s1k(prime(1), r"So $p = 2$ and it is $\boxed{8}$."),
            s1k(prime(2), "A proof of many lines.\n" * 9),
            s1k("What is DNA?", "acid", "science"),
            s1k(prime(3), "125"),
            s1k(prime(4), r"\boxed{\frac{1}{}}"),
        ],
    )
    put(
        root,
        "aime_1983_2023",
        [
            {"query": prime(1) + " Thanks.", "ref_answer": "8"},
            {"query": prime(5), "ref_answer": "080 or 081 (both were accepted)"},
            {"query": prime(6), "ref_answer": "6"},
        ],
    )
    rows = [{"id": str(number), "problem": prime(100 + number), "answer": str(1000 + number)} for number in range(28)]
    copies = [
        {"id": "28", "problem": prime(6), "answer": "6"},
        {"id": "29", "problem": "What is 2 + 2?", "answer": "4"},
    ]
    put(root, "aime25", rows + copies)
    return root


def test_rows_become_problems_unless_there_is_a_reason_and_the_report_names_it(small: Path) -> None:
    params = parameters(small, ["tldr_aime25"])
    assert made_sets(small, SHIPPED, params) is None
    figures = make_sets(small, SHIPPED, params)
    by_role = {each["role"]: each for each in figures.values()}
    assert by_role["system1"] == {
        "role": "system1",
        "source": "openai/gsm8k, main/train-00000-of-00001.parquet",
        "rows": 2,
        "no_answer": [],
        "not_read": [],
        "removed": {"gsm8k_train-2": "test:tldr_aime25/29"},
        "kept": 1,
        "digest": by_role["system1"]["digest"],
    }
    assert by_role["system2"]["rows"] == 4, "its science row is no row of the set"
    assert by_role["system2"]["no_answer"] == ["s1k-2"] and by_role["system2"]["not_read"] == ["s1k-5"]
    assert by_role["control"]["removed"] == {
        "aime_1983_2023-1": "system2:s1k-1",
        "aime_1983_2023-3": "test:tldr_aime25/28",
    }
    assert removed_by(by_role["control"]) == {"system2": 1, "test": 1}
    assert by_role["test"]["kept"] == 30 and by_role["test"]["removed"] == {}
    assert json.loads((small / "data" / "math" / "report.json").read_text())["sets"] == figures
    kept = {role: read_problems(small / f"data/math/{role}.jsonl") for role in ROLES}
    assert [problem.gold for problem in kept["system2"]] == ["8", "125"]
    assert [alternatives(problem.gold) for problem in kept["control"]] == [["80", "81"]]
    instruction = r"Please reason step by step, and put your final answer within \boxed{}."
    assert kept["system1"][0].prompt == f"How many legs have 3 cats?\n{instruction}"


def test_what_is_made_is_made_once_and_again_when_anything_behind_it_changes(small: Path) -> None:
    params = parameters(small, ["tldr_aime25"])
    figures = make_sets(small, SHIPPED, params)
    files = {path: (small / path).read_bytes() for path in figures}
    assert made_sets(small, SHIPPED, params) == figures
    document = read_yaml(ROOT / "params.yaml")
    assert (
        made_sets(
            small, SHIPPED, params.model_copy(update={"data": params.data.model_copy(update={"overlap_ngram": 4})})
        )
        is None
    )
    other = Sources.model_validate(SHIPPED.model_dump() | {"instruction": "Answer."})
    assert made_sets(small, other, params) is None
    put(small, "gsm8k_train", [gsm8k("How many legs have 4 cats?", "16")])
    assert made_sets(small, SHIPPED, params) is None
    make_sets(small, SHIPPED, params)
    put(small, "gsm8k_train", [gsm8k("How many legs have 3 cats?", "12"), gsm8k("What is 2 + 2?", "4")])
    make_sets(small, SHIPPED, params)
    assert {path: (small / path).read_bytes() for path in figures} == files and document
    (small / "data/math/control.jsonl").write_text("edited by hand\n")
    with pytest.raises(
        UserError, match=r"control\.jsonl was not made by `tldr fetch`, or was changed afterwards; move it"
    ):
        made_sets(small, SHIPPED, params)


def test_files_of_the_users_own_are_compared_and_stay(small: Path) -> None:
    own = small / "data" / "mine.jsonl"
    own.write_text(json.dumps({"id": "mine", "prompt": prime(6), "gold": "6"}) + "\n")
    figures = make_sets(small, SHIPPED, parameters(small, ["tldr_aime25"], system1="data/mine.jsonl"))
    by_role = {each["role"]: each for each in figures.values()}
    assert set(by_role) == {"system2", "control", "test"}
    assert by_role["control"]["removed"]["aime_1983_2023-3"] in ("system1:mine", "test:tldr_aime25/28")
    assert json.loads(own.read_text())["id"] == "mine"


def test_a_set_of_which_nothing_is_left_is_refused_and_nothing_is_written(small: Path) -> None:
    put(small, "aime_1983_2023", [{"query": prime(1), "ref_answer": "8"}])
    with pytest.raises(UserError, match=r"Nothing is left of https://raw.* for data/math/control\.jsonl"):
        make_sets(small, SHIPPED, parameters(small, ["tldr_aime25"]))
    assert not (small / "data" / "math").exists()


def test_tasks_without_a_benchmark_file_make_no_test_set(small: Path) -> None:
    with pytest.raises(UserError, match=r"No task of evaluate\.tasks reads a benchmark file"):
        make_sets(small, SHIPPED, parameters(small, ["tiny"]))


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"First $\boxed{3}$, then $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (" 128 ", "128"),
        ("x = 4\ny = 5", None),
        ("word " * 40, None),
        (r"\boxed{ }", None),
        (" ", None),
    ],
)
def test_the_answer_of_a_worked_solution(solution: str, answer: str | None) -> None:
    assert answer_of(solution) == answer


def test_the_shipped_sources_fit_the_tasks_and_ask_with_their_instruction() -> None:
    template = (ROOT / "tasks" / "_benchmark.yaml").read_text()
    assert SHIPPED.instruction.replace("\\", "\\\\") in template
    names = [path.stem for path in (ROOT / "tasks").glob("tldr_*.yaml")]
    params = parameters(ROOT, names)
    for name, benchmark in task_benchmarks(ROOT, params).items():
        file = SHIPPED.at(str(benchmark.path.relative_to(ROOT)))
        assert file is not None, f"{name} reads a file that data/sources.yaml does not have"
        assert benchmark.source == SHIPPED.files[file].origin
    assert set(wanted_files(ROOT, SHIPPED, params)) == set(SHIPPED.files)
    listed = (ROOT / "data" / "benchmarks" / "README.md").read_text()
    digests = {SHIPPED.files[name].sha256 for name in ("gsm8k_test", "math500", "aimo_aime", "aimo_amc", "minerva")}
    assert digests == set(re.findall(r"^([0-9a-f]{64})  ", listed, re.MULTILINE))
    assert wanted_files(ROOT, SHIPPED, check_params(read_yaml(ROOT / "params.yaml"), "params.yaml")) == []


def test_a_set_in_the_place_of_another_role_is_refused(small: Path) -> None:
    with pytest.raises(UserError, match=r"data\.system2\.path = data/math/control\.jsonl is the set of control"):
        make_sets(small, SHIPPED, parameters(small, ["tldr_aime25"], system2="data/math/control.jsonl"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("instruction: Please", "instructions: Please", "key instruction is missing"),
        ("file: s1k", "file: s2k", "sets.data/math/system2.jsonl names the file s2k, which is not under files"),
        (
            "revision: 278d72baaa2b887a7e76a70a0ae254a5a45536e4",
            "revision: main",
            "must be a full commit of 40 hex digits",
        ),
        ("gold_format: solution", "gold_format: prose", "needs a gold_format of integer, latex"),
        ("path: data/benchmarks/s1k.parquet", "path: ../s1k.parquet", "stays inside the checkout"),
        ("    sha256: 33d4e1", "    sha256: null #", "has a url, whose contents may change, and needs a sha256"),
    ],
)
def test_a_fault_in_the_sources_is_named(root: Path, old: str, new: str, said: str) -> None:
    text = (root / FILE).read_text()
    assert old in text
    (root / FILE).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        read_sources(root)


def test_the_lock_fills_gaps_only_and_keeps_comments(root: Path) -> None:
    before = (root / FILE).read_text()
    commit, digest = "a" * 40, "b" * 64
    found = {"asdiv": {"revision": commit, "sha256": digest}, "gsm8k_test": {"revision": commit, "sha256": digest}}
    assert write_lock(root, found) == ["files.asdiv.revision", "files.asdiv.sha256"]
    after = (root / FILE).read_text()
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line.strip() for line in changed] == [
        f"hub: {{repo: EleutherAI/asdiv, file: asdiv/validation-00000-of-00001.parquet, revision: {commit}}}",
        f"sha256: {digest}",
    ]
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in after.splitlines() if line.startswith("#")
    ]
    asdiv = read_sources(root).files["asdiv"]
    assert asdiv.hub is not None and (asdiv.hub.revision, asdiv.sha256) == (commit, digest)
    assert write_lock(root, found) == [] and (root / FILE).read_text() == after


@needs_benchmarks
def test_the_published_files_give_sets_without_a_problem_in_two_of_them(root: Path) -> None:
    """287 AIME problems, every third, stand in for s1K, of which no copy is at hand: it holds as many."""
    for path in BENCHMARKS.iterdir():
        (root / "data" / "benchmarks" / path.name).symlink_to(path)
    aime = [json.loads(line) for line in (BENCHMARKS / "aime_1983_2023.jsonl").read_text().splitlines()]
    put(root, "s1k", [s1k(row["query"], row["ref_answer"]) for row in aime[::3][:287]])
    params = parameters(root, ["tldr_gsm8k", "tldr_math500", "tldr_aime24", "tldr_amc23", "tldr_minerva"])
    figures = {each["role"]: each for each in make_sets(root, SHIPPED, params).values()}
    rows = {"system1": 7473, "system2": 287, "control": 919, "test": 2161}
    assert {role: each["rows"] for role, each in figures.items()} == rows
    minerva = [f"tldr_minerva/{row}" for row in (27, 268, 269)]  # unknowns and constants with indices
    unread = {role: each["not_read"] for role, each in figures.items()}
    assert unread == {"system1": [], "system2": [], "control": [], "test": minerva}
    lost = removed_by(figures["control"])
    assert lost["system2"] + lost["test"] == 919 - figures["control"]["kept"] and lost["system2"] in (286, 287)
    # of the eight that MATH-500 has too, two are among the stand-ins
    assert sum(name.startswith("test:tldr_math500/") for name in figures["control"]["removed"].values()) == 6
    assert figures["test"]["removed"] == {}
    from stages.data.overlap import find_overlaps, likeness

    sets = {role: read_problems(root / f"data/math/{role}.jsonl") for role in ROLES}
    assert find_overlaps(sets, likeness(params)) == []
