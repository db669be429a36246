"""Response records as runs, and the conditions that `evaluate` writes beside them and beside the question table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import evaluate
from stages._errors import UserError
from stages.data.conditions import tokenizer_digest
from stages.data.evaluations import ReadSettings, Run, open_run
from stages.data.lm_eval_output import write_records
from stages.evidence.comparability import mismatches
from tests.test_evaluate import NUM_QUESTIONS, NUM_SAMPLES, GeneratorEngine, make_params, workspace, write_stock_task
from tests.toy_model import save_random_model

SETTINGS = ReadSettings(verifier="exact", processes=1)
RECORD: dict[str, Any] = {
    "task": "tiny",
    "question_id": "q1",
    "group": "g",
    "sample_index": 0,
    "seed": 3,
    "token_ids": [4, 5],
    "text": "x </think> answer 4",
    "num_tokens": 2,
    "finish_reason": "stop",
    "thinking": True,
    "correct": True,
    "answer": "4",
    "verifier_error": False,
}


def opened(path: Path, root: Path | None = None) -> Run:
    return open_run(str(path), root=root, settings=SETTINGS)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with both items evaluated, on our tiny task and on one that lm-eval scores."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("evaluated")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        workspace(root / "checkout", save_random_model(root / "model"))
        write_stock_task(root / "checkout")
        for which, checks in (("base", 6), ("candidate", 1)):
            params = make_params(tasks=["stock.yaml", "tiny"])
            evaluate.main(root / "checkout", params, which, lambda *_, checks=checks: GeneratorEngine(checks))
    return root / "checkout"


def test_table_and_records_of_a_run_are_the_same_run(evaluated: Path) -> None:
    for which in evaluate.ITEMS:
        table = opened(evaluated / "results" / "questions" / f"{which}.csv")
        folder = evaluated / "artifacts" / "evaluations" / which
        for records in (opened(folder), opened(folder / "responses.parquet")):
            assert records.conditions == table.conditions
            assert list(records.tables) == list(table.tables) == ["stock", "tiny"]
            for task, mine in records.tables.items():
                other = table.tables[task]
                assert (mine.question_ids, mine.groups) == (other.question_ids, other.groups)
                for name in ("correct", "tokens", "truncated", "no_think"):
                    assert (getattr(mine, name) == getattr(other, name)).all(), name


def test_what_was_measured_alike_has_no_mismatch_and_the_conditions_are_known(evaluated: Path) -> None:
    base, candidate = (opened(evaluated / "results" / "questions" / f"{which}.csv") for which in evaluate.ITEMS)
    assert mismatches(base.conditions, candidate.conditions, base.tables) == []
    found = base.conditions
    assert found.decode == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 120, "repetition": None}
    assert found.task_verifier == {"tiny": "exact", "stock": "exact_match, filter number"}
    assert found.versions == {"tiny": "1.0, 0-shot", "stock": "Yaml, 0-shot"}
    assert (found.length_unit, found.engine, found.seed) == ("tokens", "hf", 1)
    assert set(found.prompts) == {"tiny", "stock"}
    assert found.tokenizer == tokenizer_digest(evaluated / "models" / "tiny")
    stated = json.loads((evaluated / "results" / "questions" / "base.json").read_text())
    assert stated["tasks"]["tiny"]["num_questions"] == NUM_QUESTIONS
    assert stated["tasks"]["tiny"]["samples"] == NUM_SAMPLES
    assert str(evaluated) not in json.dumps(stated)


def test_another_token_limit_and_other_questions_are_mismatches(evaluated: Path, tmp_path: Path) -> None:
    root = shutil.copytree(evaluated, tmp_path / "checkout")
    before = opened(root / "results" / "questions" / "base.csv")
    lines = (root / "test.jsonl").read_text().splitlines()
    changed = json.loads(lines[0]) | {"gold": "9999"}
    (root / "test.jsonl").write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    evaluate.main(root, make_params(max_tokens=100), "base", lambda *_: GeneratorEngine(6))
    after = opened(root / "results" / "questions" / "base.csv")
    found = mismatches(before.conditions, after.conditions, ["tiny"])
    assert [each.field for each in found] == ["prompts", "decode.max_tokens"]


def test_texts_come_with_the_question_where_the_problem_file_is_at_hand(evaluated: Path) -> None:
    run = opened(evaluated / "artifacts" / "evaluations" / "base", evaluated)
    found = run.texts([("tiny", "q3", 2), ("stock", "3", 1), ("tiny", "gone", 0)])
    asked = json.loads((evaluated / "test.jsonl").read_text().splitlines()[3])
    trace = found["tiny", "q3", 2]
    assert (trace.problem, trace.gold) == (asked["prompt"], asked["gold"])
    assert "</think>" in trace.text
    assert (found["stock", "3", 1].problem, found["stock", "3", 1].gold) == ("", "")
    assert len(found) == 2
    alone = opened(evaluated / "artifacts" / "evaluations" / "base").texts([("tiny", "q3", 2)])
    assert (alone["tiny", "q3", 2].problem, alone["tiny", "q3", 2].text) == ("", trace.text)


def write(path: Path, *changes: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, [RECORD | dict(change) for change in changes])
    return path


def test_records_of_several_tasks_in_their_folders_are_one_run(tmp_path: Path) -> None:
    for task, version in (("a", 1.0), ("b", 2.0)):
        write(tmp_path / "digest" / task / "records.parquet", {"task": task}, {"task": task, "question_id": "q2"})
        (tmp_path / "digest" / task / "lm_eval.json").write_text(json.dumps({"versions": {task: version}}))
    run = opened(tmp_path / "digest")
    assert {name: table.num_questions for name, table in run.tables.items()} == {"a": 2, "b": 2}
    assert run.conditions.versions == {"a": "1.0", "b": "2.0"}
    assert run.conditions.decode is None
    write(tmp_path / "digest" / "c" / "records.parquet", {"task": "a"})
    with pytest.raises(UserError, match=r"Task a is in \S+a/records\.parquet and in \S+c/records\.parquet"):
        opened(tmp_path / "digest")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {}], "sample_index: task 'tiny', question 'q1' has one index twice"),
        ([{}, {"question_id": "q2", "sample_index": 1}], "sample_index: task 'tiny', question 'q2' has"),
        ([{}, {"sample_index": -1}], "row 2, column sample_index: -1 is no count"),
        ([{"num_tokens": -4}], "row 1, column num_tokens: -4 is no count"),
        ([{"finish_reason": "eos"}], "row 1, column finish_reason: 'eos' is unknown"),
        ([{}, {"correct": None}], "row 2, column correct: the task does not score with 0 and 1"),
        ([{"task": None}], "row 1, column task: empty"),
        ([{"question_id": ""}], "row 1, column question_id: empty"),
    ],
)
def test_malformed_records_name_file_row_and_column(
    tmp_path: Path, changes: list[dict[str, Any]], message: str
) -> None:
    path = write(tmp_path / "records.parquet", *changes)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_cut_answer_is_wrong_whatever_the_record_says(tmp_path: Path) -> None:
    (table,) = opened(write(tmp_path / "records.parquet", {"finish_reason": "length"})).tables.values()
    assert (table.correct.tolist(), table.truncated.tolist()) == ([[False]], [[True]])


def test_other_and_damaged_parquet_files_are_one_sentence(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", {})
    pq.write_table(pa.table({"problem": ["a"]}), tmp_path / "other.parquet")
    pq.write_table(
        pq.read_table(whole).append_column("x", pa.array([1])).drop_columns("correct"), tmp_path / "less.parquet"
    )
    text = pq.read_table(whole).drop_columns("correct").append_column("correct", pa.array(["true"]))
    pq.write_table(text, tmp_path / "text.parquet")
    pq.write_table(pq.read_table(whole).slice(0, 0), tmp_path / "none.parquet")
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name, message in (
        ("other", "has no column task, so it holds no response records"),
        ("less", "has no column correct"),
        ("text", "column correct: string instead of boolean"),
        ("none", "has no rows"),
        ("cut", "is no readable Parquet file"),
        ("empty", "is no readable Parquet file"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.parquet,? ?{message}") as caught:
            opened(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)


def test_the_tokenizer_digest_is_of_what_decides_ids(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model")
    digest, file = tokenizer_digest(folder), folder / "tokenizer.json"
    whole = json.loads(file.read_text())

    def changed(**parts: Any) -> str:
        file.write_text(json.dumps(whole | parts))
        return tokenizer_digest(folder)

    assert changed() == changed(truncation={"max_length": 3}, post_processor=None) == digest
    (folder / "chat_template.jinja").write_text("other")
    assert tokenizer_digest(folder) == digest
    more = {"id": 99, "content": "<more>", "special": True}
    assert changed(added_tokens=[*whole["added_tokens"], more]) != digest
    vocabulary = whole["model"]["vocab"] | {"new": 98}
    assert changed(model=whole["model"] | {"vocab": vocabulary}) != digest
    spelled = {"type": "BPE", "vocab": {}, "merges": ["a b"]}
    assert changed(model=spelled) == changed(model=spelled | {"merges": [["a", "b"]]}) != digest
    file.unlink()
    (folder / "vocab.json").write_text('{"a": 0}')
    assert tokenizer_digest(folder) not in (digest, changed())
