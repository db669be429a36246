"""Pages of runs where something is missing, small or broken: a sentence in its place, never a wrong figure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stages._errors import UserError
from stages._io import write_json
from tests.page.conftest import Write
from tests.page.reading import Reader
from tests.page.toy_results import Rows, answers, write_artifacts, write_responses, write_toy


def toy_of(tmp_path: Path, base: Rows, candidate: Rows) -> Path:
    return write_toy(tmp_path / "checkout", base, candidate)


def missing(text: str) -> list[str]:
    """The sentences that stand in place of something."""
    return [part.split("</p>")[0] for part in text.split('<p class="missing">')[1:]]


def test_a_fresh_clone_has_everything_but_the_traces(tmp_path: Path, write: Write) -> None:
    text = write(toy_of(tmp_path, answers(100), answers(40, lost=3)))
    (sentence,) = missing(text)
    assert "responses.parquet" in sentence
    assert "dvc pull" in sentence
    assert "3 have fewer correct answers" in Reader(text).text
    assert "artifacts/provenance is not in this checkout" in text


def test_zero_flips(tmp_path: Path, write: Write) -> None:
    tables = answers(100), answers(40)
    text = write(write_artifacts(toy_of(tmp_path, *tables), *tables))
    assert missing(text) == []
    assert "0 have fewer correct answers after than before and 0 have more" in Reader(text).text
    assert 'class="answers"' not in text


def test_one_question_with_one_answer(tmp_path: Path, write: Write) -> None:
    text = write(toy_of(tmp_path, answers(100, num=1, repeats=1), answers(40, num=1, repeats=1)))
    reader = Reader(text)
    assert "1 question with 1 answer of the baseline" in reader.text
    assert "no interval: too few questions" in reader.text
    assert ">nan" not in text.lower()
    assert "NaN" not in text


def test_without_the_trajectory_its_section_says_so(tmp_path: Path, write: Write) -> None:
    root = toy_of(tmp_path, answers(100), answers(40))
    (root / "results" / "ratio.csv").unlink()
    (sentence,) = missing(write(root))
    assert sentence.startswith("results/ratio.csv is not in this checkout")
    assert "`tldr repro train` makes it" in sentence


@pytest.mark.parametrize("value", ["", "many", "nan", "inf"])
def test_a_broken_trajectory_names_line_and_field(tmp_path: Path, write: Write, value: str) -> None:
    root = toy_of(tmp_path, answers(100), answers(40))
    path = root / "results" / "ratio.csv"
    path.write_text(path.read_text().replace("68.0", value))
    with pytest.raises(UserError, match=r"ratio.csv, line 3, field mean_tokens: .* is not a number; run `tldr repro"):
        write(root)


def test_without_bounds_the_trajectory_stands_alone(tmp_path: Path, write: Write) -> None:
    root = toy_of(tmp_path, answers(100), answers(40))
    (root / "results" / "schedule.json").unlink()
    assert 'id="ratio-tokens-title"' in write(root)


def test_what_an_update_asked_of_the_control_set_is_said(tmp_path: Path, write: Write) -> None:
    """Whether a part was asked is in the results of train; params.yaml alone does not say how large the set is."""
    root = toy_of(tmp_path, answers(100), answers(40))
    path = root / "data" / "tiny" / "control.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{}\n" * 512)
    assert "3 control evaluations of 512 questions; the ratio" in write(root)
    settings = root / "params.yaml"
    settings.write_text(re.sub("(control_questions:) .*", r"\1 32", settings.read_text()))
    train = json.loads((root / "results" / "train.json").read_text())
    write_json(root / "results" / "train.json", train | {"scored": {"step-00032": {"accuracy": 0.9}}})
    page = write(root)
    assert "3 control evaluations of 32 questions each, other ones every time, out of 512 questions; the ratio" in page
    assert "the selected one tends to look shorter here than it is" in page and "flatter" not in page


def test_no_floor_is_drawn_where_none_holds(tmp_path: Path, write: Write) -> None:
    root = toy_of(tmp_path, answers(100), answers(40))
    assert "10 % and 90 % (ratio.floor)" in write(root)
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("controller: robust", "controller: paper"))
    assert "No floor holds under this controller and schedule." in write(root)


def test_traces_of_other_answers_are_not_shown(tmp_path: Path, write: Write) -> None:
    tables = answers(100), answers(40, lost=3)
    root = write_artifacts(toy_of(tmp_path, *tables), *tables)
    assert 'class="answers"' in write(root)
    write_responses(root, "candidate", answers(41, lost=3), "from another run")
    text = write(root)
    assert "from another run" not in text
    assert "of other answers than the question tables" in missing(text)[0]


def test_a_broken_file_of_responses_is_named(tmp_path: Path, write: Write) -> None:
    tables = answers(100), answers(40, lost=3)
    root = write_artifacts(toy_of(tmp_path, *tables), *tables)
    (root / "artifacts" / "evaluations" / "base" / "responses.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"base/responses.parquet is no readable Parquet file .* take the file"):
        write(root)


def test_the_frontier_is_drawn_for_the_questions_it_is_about(tmp_path: Path, write: Write) -> None:
    text = write(toy_of(tmp_path, answers(100, num_groups=8), answers(40, num_groups=8)))
    assert "oracle frontier, simulated" in text
    (tmp_path / "two").mkdir()
    assert "oracle frontier" not in write(toy_of(tmp_path / "two", answers(100), answers(40)))
