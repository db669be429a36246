"""The stage label-by-length on samples written by hand: what it chooses, counts and refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages._errors import StageFailed, UserError
from stages._params import Params, check_params, read_yaml
from stages.engines.base import decode_spec
from stages.label_by_length import main
from stages.tiny.chains import VOCABULARY
from tests.paths import ROOT
from tests.toy_model import save_random_model

IDS = {word: index for index, word in enumerate(VOCABULARY)}
OUTPUTS = (
    "artifacts/labels/system1.jsonl",
    "artifacts/labels/system2.jsonl",
    "artifacts/labels/grades.parquet",
    "results/labels.json",
    "results/lengths.csv",
)
PROBLEMS = {
    "system1": [("e1", "Q: 1 a + 1 ?", "2"), ("e2", "Q: 2 a + 2 ?", "4")],
    "system2": [("h1", "Q: 3 a + 3 b + 1 ?", "7"), ("h2", "Q: 4 a + 4 b - 1 ?", "7")],
    "control": [("c1", "Q: 5 a - 4 ?", "1")],
    "test": [("t1", "Q: 6 a - 4 ?", "2")],
}
# (source, problem, words before </think>, answer, finish reason); answers of one problem in sample order
SAMPLES: list[tuple[str, str, int, str, str]] = [
    ("system1", "e1", 9, "2", "stop"),
    ("system1", "e1", 6, "2", "stop"),
    ("system1", "e1", 6, "2", "stop"),  # a tie: the smaller index wins
    ("system1", "e1", 2, "2", "stop"),  # thought too short
    ("system1", "e2", 7, "4", "length"),  # right, but cut off
    ("system1", "e2", 8, "5", "stop"),
    ("system1", "e2", 8, "5", "stop"),
    ("system1", "e2", 8, "", "length"),
    ("system2", "h1", 30, "7", "stop"),
    ("system2", "h1", 20, "7", "stop"),
    ("system2", "h1", 40, "7", "stop"),
    ("system2", "h1", 10, "6", "stop"),
    ("system2", "h2", 12, "7", "stop"),
    ("system2", "h2", 12, "6", "stop"),
    ("system2", "h2", 12, "6", "stop"),
    ("system2", "h2", 12, "6", "stop"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield save_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, rows in PROBLEMS.items():
        write_problems(tmp_path, name, rows)
    return tmp_path


def write_problems(root: Path, name: str, rows: list[tuple[str, str, str]]) -> None:
    lines = [json.dumps({"id": id, "prompt": prompt, "gold": gold}) for id, prompt, gold in rows]
    (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def make_params(model: Path, **changes: Any) -> Params:
    document = read_yaml(ROOT / "params.yaml")
    document["model"]["path"] = str(model)
    for name in PROBLEMS:
        document["data"][name]["path"] = f"{name}.jsonl"
    document["data"]["verifier"] = changes.pop("verifier", "exact")
    document["label"] |= {"min_tokens": 5, "min_thought_tokens": 5, "system2_choice": "all"} | changes
    return check_params(document, "params.yaml")


def sample_row(source: str, problem: str, index: int, words: list[str], reason: str, params: Params) -> dict[str, Any]:
    return {
        "source": source,
        "problem_id": problem,
        "sample_index": index,
        "seed": 1000 + index,
        "prompt_ids": [IDS["<bos>"], IDS["<think>"]],
        "token_ids": [IDS[word] for word in words],
        "text": " ".join(words),
        "num_tokens": len(words),
        "finish_reason": reason,
        "engine": "hf",
        "model_hash": "0" * 16,
        "decode_hash": decode_spec(params).digest,
    }


def sample_rows(params: Params, samples: list[tuple[str, str, int, str, str]] = SAMPLES) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for source, problem, num_thought, answer, reason in samples:
        index = sum(row["problem_id"] == problem for row in rows)
        words = ["ok"] * num_thought + (["</think>", "answer", answer, "<eos>"] if answer else [])
        rows.append(sample_row(source, problem, index, words, reason, params))
    return rows


def write_samples(root: Path, rows: list[dict[str, Any]]) -> None:
    (root / "artifacts").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "artifacts" / "samples.parquet")


def run(root: Path, params: Params, rows: list[dict[str, Any]] | None = None) -> None:
    write_samples(root, sample_rows(params) if rows is None else rows)
    main(root, params)


def chosen(root: Path, role: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "artifacts" / "labels" / f"{role}.jsonl").read_text().splitlines()]


def test_system1_is_the_shortest_correct_answer(root: Path, model: Path) -> None:
    run(root, make_params(model))
    assert chosen(root, "system1") == [
        {
            "problem_id": "e1",
            "role": "system1",
            "sample_index": 1,
            "prompt_ids": [IDS["<bos>"], IDS["<think>"]],
            "token_ids": [IDS["ok"]] * 6 + [IDS["</think>"], IDS["answer"], IDS["2"], IDS["<eos>"]],
            "num_tokens": 10,
            "pass_rate": 1.0,
            "rank": 0,
        }
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", [("h1", 1, 0, 0.75), ("h1", 0, 1, 0.75), ("h1", 2, 2, 0.75), ("h2", 0, 0, 0.25)]),
        ("shortest", [("h1", 1, 0, 0.75), ("h2", 0, 0, 0.25)]),
        ("longest", [("h1", 2, 2, 0.75), ("h2", 0, 0, 0.25)]),
        ("median", [("h1", 0, 1, 0.75), ("h2", 0, 0, 0.25)]),
    ],
)
def test_system2_choice(root: Path, model: Path, choice: str, expected: list[tuple[str, int, int, float]]) -> None:
    run(root, make_params(model, system2_choice=choice))
    rows = chosen(root, "system2")
    assert [(row["problem_id"], row["sample_index"], row["rank"], row["pass_rate"]) for row in rows] == expected
    assert {row["role"] for row in rows} == {"system2"}


def test_guards_leave_out_and_are_counted(root: Path, model: Path) -> None:
    params = make_params(model, min_tokens=14, min_thought_tokens=15)
    with pytest.raises(StageFailed, match=r"System-1 set is empty: of 8 answers 4 are correct but too short; lower"):
        run(root, params)
    run(root, make_params(model, min_tokens=11))
    assert [row["sample_index"] for row in chosen(root, "system1")] == [0]
    left_out = json.loads((root / "results" / "labels.json").read_text())["system1"]["left_out"]
    assert left_out == {"no_reasoning": 0, "min_tokens": 3, "min_thought_tokens": 0}


def test_metrics_account_for_every_answer(root: Path, model: Path) -> None:
    run(root, make_params(model))
    metrics = json.loads((root / "results" / "labels.json").read_text())
    assert metrics["num_responses"] == 16 and metrics["verifier_error_rate"] == 0.0
    assert metrics["system1"] == {
        "num_problems": 2,
        "num_responses": 8,
        "pass_rate": 0.5,
        "truncation_rate": 0.25,
        "verifier_error_rate": 0.0,
        "num_problems_without_correct": 1,
        "num_problems_chosen": 1,
        "num_correct": 4,
        "left_out": {"no_reasoning": 0, "min_tokens": 0, "min_thought_tokens": 1},
        "not_chosen": 2,
        "num_chosen": 1,
        "mean_tokens": 10,
        "median_tokens": 10,
        "min_tokens": 10,
        "max_tokens": 10,
    }
    assert metrics["system2"]["mean_tokens"] == 29.5 and metrics["system2"]["median_tokens"] == 29.0
    assert metrics["system2"]["pass_rate"] == 0.5 and metrics["system2"]["num_correct"] == 4


def test_every_answer_is_in_the_grades(root: Path, model: Path) -> None:
    run(root, make_params(model))
    table = pq.read_table(root / "artifacts" / "labels" / "grades.parquet")
    rows = table.to_pylist()
    assert len(rows) == 16
    assert rows[3] == {
        "source": "system1",
        "problem_id": "e1",
        "sample_index": 3,
        "num_tokens": 6,
        "num_thought_tokens": 2,
        "finish_reason": "stop",
        "correct": True,
        "verifier_error": False,
        "answer": "2",
        "pass_rate": 1.0,
    }
    assert (rows[4]["correct"], rows[4]["answer"], rows[7]["num_thought_tokens"]) == (False, None, 0)
    assert str(table.schema.field("correct").type) == "bool"


def test_the_histogram_counts_every_chosen_answer_in_shared_bins(root: Path, model: Path) -> None:
    run(root, make_params(model, histogram_bins=4))
    with (root / "results" / "lengths.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["role", "lower", "upper", "count"]
    assert [(row["role"], row["lower"], row["upper"], row["count"]) for row in rows] == [
        ("system1", "0", "11", "1"),
        ("system1", "11", "22", "0"),
        ("system1", "22", "33", "0"),
        ("system1", "33", "44", "0"),
        ("system2", "0", "11", "0"),
        ("system2", "11", "22", "1"),
        ("system2", "22", "33", "1"),
        ("system2", "33", "44", "2"),
    ]


def test_the_same_samples_give_the_same_bytes_in_any_row_order(root: Path, model: Path) -> None:
    params = make_params(model)
    run(root, params)
    first = {name: (root / name).read_bytes() for name in OUTPUTS}
    run(root, params, sample_rows(params)[::-1])
    assert {name: (root / name).read_bytes() for name in OUTPUTS} == first
    assert not list(root.rglob("*.tmp"))


def test_unclosed_and_repeated_thoughts(root: Path, model: Path) -> None:
    params = make_params(model)
    rows = sample_rows(params)
    words = ["ok"] * 3 + ["</think>"] + ["ok"] * 3 + ["</think>", "answer", "2", "<eos>"]
    rows[1] = sample_row("system1", "e1", 1, words, "stop", params)
    rows[2] = sample_row("system1", "e1", 2, ["ok"] * 5 + ["answer", "2", "<eos>"], "stop", params)
    run(root, params, rows)
    grades = pq.read_table(root / "artifacts" / "labels" / "grades.parquet").to_pylist()
    assert (grades[1]["correct"], grades[1]["num_thought_tokens"]) == (True, 7)
    assert (grades[2]["correct"], grades[2]["num_thought_tokens"]) == (False, 0)


def test_too_many_verifier_failures_fail_the_stage(root: Path, model: Path) -> None:
    write_problems(root, "system2", [("h1", "Q: 3 a + 3 b + 1 ?", "$ $"), ("h2", "Q: 4 a + 4 b - 1 ?", "7")])
    with pytest.raises(
        StageFailed, match=r"no verdict on 4 of 16 responses \(25.00%, limit 20.00%\), first: system2:h1"
    ):
        run(root, make_params(model, verifier="math", max_verifier_error_rate=0.2))
    assert not (root / "artifacts" / "labels").exists() and not (root / "results").exists()
    run(root, make_params(model, verifier="math", max_verifier_error_rate=0.25))
    metrics = json.loads((root / "results" / "labels.json").read_text())
    assert (metrics["verifier_error_rate"], metrics["system2"]["verifier_error_rate"]) == (0.25, 0.5)
    assert {row["problem_id"] for row in chosen(root, "system2")} == {"h2"}


@pytest.mark.parametrize(("role", "name"), [("system1", "System-1"), ("system2", "System-2")])
def test_an_empty_set_fails_the_stage(root: Path, model: Path, role: str, name: str) -> None:
    wrong = [(source, id, num, "9" if source == role else answer, end) for source, id, num, answer, end in SAMPLES]
    params = make_params(model)
    with pytest.raises(StageFailed, match=rf"The {name} set is empty.*none is correct.*data\.{role}\.path"):
        run(root, params, sample_rows(params, wrong))
    assert not any((root / output).exists() for output in OUTPUTS)


def test_an_overlap_fails_the_stage(root: Path, model: Path) -> None:
    write_problems(root, "test", [("t1", "q:  2 a + 2", "4")])
    with pytest.raises(StageFailed, match="system1:e2 ~ test:t1"):
        run(root, make_params(model))


def test_missing_damaged_and_old_samples_are_refused(root: Path, model: Path) -> None:
    params = make_params(model)
    with pytest.raises(UserError, match=r"samples\.parquet does not exist; run `tldr run sample`"):
        main(root, params)
    (root / "artifacts").mkdir()
    (root / "artifacts" / "samples.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(UserError, match=r"not a readable Parquet file .*run `tldr run sample`"):
        main(root, params)
    rows = sample_rows(params)
    with pytest.raises(UserError, match="has no column decode_hash, finish_reason; run `tldr run sample`"):
        run(root, params, [{k: v for k, v in row.items() if k not in ("finish_reason", "decode_hash")} for row in rows])
    with pytest.raises(UserError, match="other decode parameters"):
        run(root, params, [row | {"decode_hash": "f" * 16} for row in rows])
    with pytest.raises(UserError, match="answer 0 to e1 is damaged"):
        run(root, params, [rows[0] | {"num_tokens": 99}, *rows[1:]])
    with pytest.raises(UserError, match="answer 0 to e1 is damaged"):
        run(root, params, [rows[0] | {"finish_reason": "abort"}, *rows[1:]])


def test_samples_of_other_problems_or_unequal_numbers_are_refused(root: Path, model: Path) -> None:
    params = make_params(model)
    rows = sample_rows(params)
    with pytest.raises(UserError, match="answers system1:zz, which is not in its problem file"):
        run(root, params, [rows[0] | {"problem_id": "zz"}, *rows[1:]])
    with pytest.raises(UserError, match="answers system2:e1, which is not"):
        run(root, params, [rows[0] | {"source": "system2"}, *rows[1:]])
    with pytest.raises(UserError, match="holds answer 0 to system1:e1 twice"):
        run(root, params, [rows[0], *rows])
    with pytest.raises(UserError, match="holds 3 answers to system1:e1 but 4 to others"):
        run(root, params, rows[1:])
    with pytest.raises(UserError, match="holds 0 answers to system2:h2 but 4 to others"):
        run(root, params, rows[:12])
    with pytest.raises(UserError, match="holds 0 answers to system1:e1 but 0 to others"):
        write_samples(root, rows)
        table = pq.read_table(root / "artifacts" / "samples.parquet")
        pq.write_table(table.slice(0, 0), root / "artifacts" / "samples.parquet")
        main(root, params)


def test_a_tokenizer_without_the_closing_token_is_refused(root: Path, model: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(model, other)
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace("</think>", "<done>"))
    with pytest.raises(UserError, match="has no single token </think>"):
        run(root, make_params(other))
