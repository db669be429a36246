"""Plain JSON Lines of answers: what is read, what is graded, and one sentence for every fault."""

from __future__ import annotations

import gzip
import json
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from stages._errors import UserError
from stages.data.evaluations import ReadSettings, Run, open_run
from stages.data.evaluations.lines import MAX_LINE
from stages.data.evaluations.plain import read_plain
from tests.paths import SHARED_DATA

LOGS = SHARED_DATA / "r1_logs"
EXACT = ReadSettings(verifier="exact", processes=1)
ROW: dict[str, Any] = {"id": "q1", "problem": "2 + 2 ?", "gold": "4", "responses": ["one two", "three"]}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def opened(path: Path, settings: ReadSettings = EXACT) -> Run:
    return open_run(str(path), root=None, settings=settings)


def test_lists_of_the_file_become_the_table(tmp_path: Path) -> None:
    rows = [
        ROW | {"correct": [True, 1], "num_tokens": [7, 0], "finish_reasons": ["stop", "length"]},
        ROW
        | {"id": 2, "gold": 4.5, "correct": [False, 0], "num_tokens": [1, 2], "finish_reasons": ["stop", "repetition"]},
    ]
    run = opened(write(tmp_path / "a.jsonl", *rows))
    (table,) = run.tables.values()
    assert (table.task, table.question_ids, table.num_samples) == ("all", ("q1", "2"), 2)
    assert table.correct.tolist() == [[True, False], [False, False]], "a cut answer is wrong whatever the file says"
    assert table.tokens.tolist() == [[7, 0], [1, 2]]
    assert table.truncated.tolist() == [[False, True], [False, True]]
    assert (run.conditions.length_unit, run.conditions.verifier, run.notes) == ("tokens", None, ())


def test_without_counts_lengths_are_words_and_without_reasons_nothing_is_truncated(tmp_path: Path) -> None:
    thinking = ROW | {"responses": ["so\u00a0 it is\n4 </think> 4", ""], "correct": [True, False]}
    run = opened(write(tmp_path / "a.jsonl", thinking))
    (table,) = run.tables.values()
    assert table.tokens.tolist() == [[6, 0]]
    assert table.no_think.tolist() == [[False, True]]
    assert not table.truncated.any()
    assert run.conditions.length_unit == "words"
    assert [note for note in run.notes if "lengths are words" in note]
    assert [note for note in run.notes if "not counted as truncated" in note]


def test_rows_may_name_their_task(tmp_path: Path) -> None:
    one = ROW | {"correct": [True, True], "task": "a"}
    other = ROW | {"correct": [False], "responses": ["x"], "task": "b"}
    run = opened(write(tmp_path / "a.jsonl", one, other))
    assert {name: table.num_samples for name, table in run.tables.items()} == {"a": 2, "b": 1}
    assert set(run.conditions.prompts) == {"a", "b"}


def test_answers_without_verdicts_are_graded(tmp_path: Path) -> None:
    rows = [ROW | {"responses": ["so . </think> answer 4", "answer 4", "answer 5"]}]
    rows += [ROW | {"id": "q2", "gold": "5", "responses": ["x </think> answer 4", "5", "answer 5"]}]
    run = opened(write(tmp_path / "a.jsonl", *rows))
    assert run.tables["all"].correct.tolist() == [[True, True, False], [False, False, True]]
    assert run.conditions.verifier == "exact"
    cut = [row | {"finish_reasons": ["length"] * 3} for row in rows]
    assert not opened(write(tmp_path / "cut.jsonl", *cut)).tables["all"].correct.any()


def test_gold_answers_that_the_verifier_cannot_read_are_not_counted_as_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROW | {"gold": r"\text{}", "responses": [r"\boxed{4}"]})
    with pytest.raises(UserError, match=r"a\.jsonl: the verifier gave no verdict on 1 of 1 answers, more than 1\.0%"):
        opened(path, ReadSettings(verifier="math", processes=1))


def test_the_prompts_digest_is_that_of_the_questions_not_of_the_answers(tmp_path: Path) -> None:
    answered = ROW | {"correct": [True, True]}
    second = answered | {"id": "q2"}
    base = opened(write(tmp_path / "a.jsonl", answered, second)).conditions.prompts
    other = answered | {"responses": ["other", "words"], "correct": [False, True]}
    assert opened(write(tmp_path / "b.jsonl", second, other)).conditions.prompts == base
    for change in ({"gold": "5"}, {"problem": "2 + 3 ?"}, {"id": "q3"}):
        assert opened(write(tmp_path / "c.jsonl", answered | change, second)).conditions.prompts != base


def test_texts_are_read_again_for_the_keys_that_are_asked(tmp_path: Path) -> None:
    row = ROW | {"responses": [r"so \boxed{4}", "none"], "correct": [True, False]}
    run = opened(write(tmp_path / "a.jsonl", row, row | {"id": "q2"}))
    found = run.texts([("all", "q1", 0), ("all", "q2", 1), ("all", "q2", 9), ("other", "q1", 0)])
    assert set(found) == {("all", "q1", 0), ("all", "q2", 1)}
    trace = found["all", "q1", 0]
    assert (trace.problem, trace.gold, trace.text, trace.answer) == ("2 + 2 ?", "4", r"so \boxed{4}", "4")
    assert found["all", "q2", 1].answer is None
    assert run.texts([]) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{}", "line 2, field responses: missing"),
        ("[1]", "line 2: a JSON list instead of an object"),
        ("null", "line 2: a JSON null instead of an object"),
        ("{'id': 1}", "line 2: not JSON"),
        ('{"id": "q1"', "line 2: not JSON"),
        ("[" * 100_000, "line 2: brackets nested too deep"),
        ('{"id": NaN}', "line 2: NaN is no JSON number"),
        ('{"num_tokens": [Infinity]}', "line 2: Infinity is no JSON number"),
        ('{"num_tokens": [' + "9" * 5000 + "]}", "line 2: a whole number with thousands of digits"),
        ('{"id": "q", "id": "r"}', "line 2: field id stands twice"),
        (json.dumps(ROW | {"id": "x", "problem": "half \ud83d"}), "line 2, field problem: half of a surrogate pair"),
        (ROW, 'line 2, field id: "q1" is already on line 1'),
        (ROW | {"id": ""}, "line 2, field id: empty"),
        (ROW | {"id": True}, "line 2, field id: a boolean"),
        (ROW | {"id": 1.5}, "line 2, field id: a number"),
        (ROW | {"id": "x", "problem": None}, "line 2, field problem: a null"),
        (ROW | {"id": "x", "gold": ["4"]}, "line 2, field gold: a list"),
        (ROW | {"id": "x", "prompt": 3}, "line 2, field prompt: a number"),
        (ROW | {"id": "x", "responses": []}, "line 2, field responses: empty"),
        (ROW | {"id": "x", "responses": "text"}, "line 2, field responses: a string"),
        (ROW | {"id": "x", "responses": ["a", None]}, "line 2, field responses: a null among the answers"),
        (ROW | {"id": "x", "responses": ["a"]}, "line 2, field responses: 1 answers, but line 1 has 2"),
        (ROW | {"id": "x", "correct": [True]}, "line 2, field correct: 1 entries for 2 responses"),
        (ROW | {"id": "x", "correct": ["true", True]}, 'line 2, field correct: "true" is neither true nor false'),
        (ROW | {"id": "x", "correct": [0.5, 1]}, r"line 2, field correct: 0\.5 is neither"),
        (ROW | {"id": "x", "correct": [True, True]}, "line 2, field correct: given, but not on line 1"),
        (ROW | {"id": "x", "task": "t"}, "line 2, field task: given, but not on line 1"),
        (ROW | {"id": "x", "num_tokens": [5, -1]}, "line 2, field num_tokens: -1 is not a whole number"),
        (ROW | {"id": "x", "num_tokens": [5, 10**12]}, "line 2, field num_tokens: 1000000000000 is not"),
        (ROW | {"id": "x", "num_tokens": [5, 1.0]}, r"line 2, field num_tokens: 1\.0 is not a whole number"),
        (ROW | {"id": "x", "num_tokens": [5, True]}, "line 2, field num_tokens: true is not a whole number"),
        (ROW | {"id": "x", "num_tokens": 5}, "line 2, field num_tokens: a number; write a list"),
        (ROW | {"id": "x", "num_tokens": [5]}, "line 2, field num_tokens: 1 entries for 2 responses"),
        (ROW | {"id": "x", "num_tokens": [5, 6]}, "line 2, field num_tokens: given, but not on line 1"),
        (ROW | {"id": "x", "finish_reasons": ["stop", "eos"]}, 'line 2, field finish_reasons: "eos" is unknown'),
    ],
)
def test_a_malformed_row_names_file_line_and_field(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "runs.jsonl", ROW, row)
    with pytest.raises(UserError, match=rf"runs\.jsonl, {message}") as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("missing", ["num_tokens", "correct", "finish_reasons"])
def test_a_list_that_only_some_rows_have_is_refused(tmp_path: Path, missing: str) -> None:
    full = ROW | {"num_tokens": [1, 2], "correct": [True, False], "finish_reasons": ["stop", "stop"]}
    rest = {name: value for name, value in full.items() if name != missing} | {"id": "q2"}
    with pytest.raises(UserError, match=f"line 2, field {missing}: missing, but given on line 1"):
        opened(write(tmp_path / "a.jsonl", full, rest))


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    line = json.dumps(ROW | {"correct": [True, False]}).encode() + b"\n"
    packed = gzip.compress(line.replace(b"three", random.Random(1).randbytes(3000).hex().encode()))
    for name, content, message in (
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n \n", "is empty"),
        ("latin.jsonl", line.replace(b"q1", b"q\xe9"), "line 1: not UTF-8 text"),
        ("binary.jsonl", bytes(range(256)), "line 1: not UTF-8 text|line 1: not JSON"),
        ("cut.jsonl.gz", packed[:-9], "the compressed data end too early"),
        ("wrong.jsonl.gz", line, "named .gz but is not compressed"),
        ("broken.jsonl.gz", packed[:20] + b"\xff\xff\xff" + packed[23:], "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            opened(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_compression_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(ROW | {"correct": [True, False]}).encode() + b"\r\n\r\n"
    for name, written in (
        ("a.jsonl", content),
        ("b.jsonl.gz", gzip.compress(content)),
        ("c.jsonl", gzip.compress(content)),
    ):
        (tmp_path / name).write_bytes(written)
        assert opened(tmp_path / name).tables["all"].correct.tolist() == [[True, False]]


def test_an_endless_line_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(8):
            stream.write(b" " * MAX_LINE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"long\.jsonl\.gz, line 1: longer than 64 MiB"):
        opened(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 4 * MAX_LINE


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs ../shared/data/r1_logs, which is not part of the project")
def test_logs_of_published_models_are_read_whole() -> None:
    runs = {path.name.partition(".")[0]: opened(path) for path in sorted(LOGS.glob("*.jsonl.gz"))}
    shapes = {name: run.tables["all"].correct.shape for name, run in runs.items()}
    assert shapes == {
        **dict.fromkeys(("static-7b_amc23", "tldr-7b_amc23"), (40, 8)),
        **dict.fromkeys(("static-7b_math500", "tldr-7b_math500"), (500, 1)),
    }
    for benchmark in ("amc23", "math500"):
        one, other = runs[f"static-7b_{benchmark}"], runs[f"tldr-7b_{benchmark}"]
        assert set(one.tables["all"].question_ids) == set(other.tables["all"].question_ids)
        assert one.conditions == other.conditions
    rows = list(read_plain(LOGS / "tldr-7b_amc23.jsonl.gz"))
    words = [[len(text.split()) for text in row.responses] for row in rows]
    assert runs["tldr-7b_amc23"].tables["all"].tokens.tolist() == words
