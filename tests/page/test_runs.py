"""`--run LABEL=PATH`: further runs beside the two models, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stages._errors import UserError
from tests.page.conftest import Write
from tests.page.reading import Reader
from tests.page.toy_results import answers, write_table


def test_further_runs_are_drawn_and_listed(toy: Path, tmp_path: Path, write: Write) -> None:
    paths = [write_table(tmp_path / f"{tokens}.csv", answers(tokens)) for tokens in (60, 70)]
    text = write(toy, f"half={paths[0]}", f"more={paths[1]}")
    reader = Reader(text)
    for label, mean in (("half", "63.8"), ("more", "73.8")):
        row = reader.cells[reader.cells.index(label) :]
        assert mean in row[:9]
        assert f"{label} (n = 40)" in reader.text
    colours = re.findall(r"fill: var\(--(run-\d)\)", text[text.index('id="pareto-overall-title"') :].split("</svg>")[0])
    assert set(colours) == {"run-1", "run-2"}


def test_more_runs_than_colours(toy: Path, tmp_path: Path, write: Write) -> None:
    path = write_table(tmp_path / "run.csv", answers(60))
    text = write(toy, *(f"run {number}={path}" for number in range(8)))
    assert all(f"run {number} (n = 40)" in text for number in range(8))


def test_a_run_on_other_questions_is_refused(toy: Path, tmp_path: Path, write: Write) -> None:
    path = write_table(tmp_path / "few.csv", answers(60, num=12))
    with pytest.raises(
        UserError, match=r"--run few cannot be shown beside the baseline: question_id: .*28 only in the"
    ):
        write(toy, f"few={path}")


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (["table.csv"], "--run 'table.csv' is not LABEL=PATH"),
        (["=table.csv"], "is not LABEL=PATH"),
        (["a="], "is not LABEL=PATH"),
        (["baseline=table.csv"], "the label baseline is taken"),
        (["a=absent.csv"], "absent.csv does not exist"),
        (["a=/"], "/ holds neither responses.parquet"),
    ],
)
def test_a_wrong_option_is_one_sentence(toy: Path, write: Write, runs: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        write(toy, *runs)


def test_a_run_under_another_token_limit_is_refused(toy: Path, tmp_path: Path, write: Write) -> None:
    """Its point would lie further left only because its answers were cut."""
    decode = {"temperature": 1.0, "top_p": 1.0, "repetition": None}
    path = write_table(tmp_path / "run.csv", answers(60))
    for table, limit in ((toy / "results" / "questions" / "base.csv", 640), (path, 64)):
        conditions = {
            "schema_version": 1,
            "length_unit": "tokens",
            "decode": {**decode, "max_tokens": limit},
            "tasks": {},
        }
        table.with_suffix(".json").write_text(json.dumps(conditions))
    with pytest.raises(
        UserError, match=r"--run short cannot be shown beside the baseline: The token limit .* 640 .* 64 "
    ):
        write(toy, f"short={path}")


def test_two_runs_of_one_label_are_refused(toy: Path, tmp_path: Path, write: Write) -> None:
    path = write_table(tmp_path / "run.csv", answers(60))
    with pytest.raises(UserError, match="the same LABEL"):
        write(toy, f"a={path}", f"a={path}")


def test_a_broken_table_names_line_and_field(toy: Path, tmp_path: Path, write: Write) -> None:
    path = write_table(tmp_path / "run.csv", answers(60))
    path.write_text(path.read_text().replace("q1,0,1", "q1,0,yes"))
    with pytest.raises(UserError, match=r"run.csv, line 4, field correct: .*; write the table anew"):
        write(toy, f"a={path}")
