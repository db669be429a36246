"""Published tables as CSV: which files are taken for one, which groups a name means, and the sentence for every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages._errors import UserError
from stages.data.cell_table import is_cell_table, read_cells, select_group, split_spec
from stages.evidence.cells import Cell
from tests.paths import ROOT

HEADER = "base,method,benchmark,accuracy_pct,mean_tokens\n"
GOOD = HEADER + "big,original,gsm8k,90,100\nbig,short,gsm8k,91.5,40.5\n"


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_are_grouped_by_their_labels_in_the_order_of_the_file(tmp_path):
    groups = read_cells(table(tmp_path, GOOD + "big,original,math,80,2000\n"))
    assert groups == {
        ("big", "original"): [Cell("gsm8k", 0.9, 100), Cell("math", 0.8, 2000)],
        ("big", "short"): [Cell("gsm8k", 0.915, 40.5)],
    }


def test_other_names_of_the_columns_a_bom_windows_line_ends_and_blank_lines(tmp_path):
    text = "\ufefftokens , task,accuracy\r\n\r\n 100 ,gsm8k,0.9\r\n"
    assert read_cells(table(tmp_path, text)) == {(): [Cell("gsm8k", 0.9, 100)]}


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ("big,x,gsm8k,nan,100", "accuracy_pct", "'nan' is not a number"),
        ("big,x,gsm8k,inf,100", "accuracy_pct", "'inf' is not a number"),
        ("big,x,gsm8k,,100", "accuracy_pct", "'' is not a number"),
        ("big,x,gsm8k,101,100", "accuracy_pct", "'101' is not between 0 and 100"),
        ("big,x,gsm8k,-1,100", "accuracy_pct", "'-1' is not between 0 and 100"),
        ("big,x,gsm8k,90,-100", "mean_tokens", "'-100' is not between 0.001 and 1e+09"),
        ("big,x,gsm8k,90,0", "mean_tokens", "'0' is not between"),
        ("big,x,gsm8k,90,1e400", "mean_tokens", "'1e400' is not between"),
        ("big,x,gsm8k,90,1_000", "mean_tokens", "'1_000' is not a number"),
        ('big,x,gsm8k,90,"1,000"', "mean_tokens", "'1,000' is not a number"),
        ("big,x,gsm8k,90", "mean_tokens", "4 values instead of 5"),
        ("big,x,gsm8k,90,100,", "mean_tokens", "6 values instead of 5"),
        ("big,x,,90,100", "benchmark", "empty"),
        ("big,,gsm8k,90,100", "method", "empty"),
        ("big,x\x1b[2J,gsm8k,90,100", "method", "control character"),
        ("big,short,gsm8k,90,100", "benchmark", "gsm8k of big/short is already on line 3"),
    ],
)
def test_a_faulty_row_is_refused_with_line_and_field(tmp_path, row, field, problem):
    path = table(tmp_path, GOOD + row + "\n")
    with pytest.raises(UserError) as error:
        read_cells(path)
    assert str(error.value).startswith(f"{path}, line 4, field {field}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: the file is empty"),
        ("\n\n", "line 1: the file is empty"),
        (HEADER, "line 2: there are no rows"),
        ("base,benchmark,mean_tokens\na,b,1\n", "line 1, field accuracy or accuracy_pct: column missing"),
        ("accuracy,mean_tokens\n1,1\n", "line 1, field benchmark or task: column missing"),
        ("task,accuracy\nb,1\n", "line 1, field mean_tokens or tokens: column missing"),
        (
            "task;accuracy;tokens\nb;1;2\n",
            "line 1, field benchmark or task: column missing; add it, separated by comma",
        ),
        ("task,accuracy,accuracy_pct,tokens\nb,1,1,1\n", "field accuracy or accuracy_pct: both are in the header"),
        ("task,x,x,accuracy,tokens\nb,1,1,1,1\n", "field x: stands 2 times in the header"),
        ("task,,accuracy,tokens\nb,1,1,1\n", "a column without a name"),
        ("task,accuracy,tokens\nb,86.8,100\n", "'86.8' is not between 0 and 1; in percent the column is called"),
        ("task,accuracy_pct,tokens\nb,0.868,100\n", "no value of the column is above 1 %; call it accuracy"),
        ('task,accuracy,tokens\nb,1,"1\n', "line 2: not CSV"),
        (HEADER.encode() + b"big,\xff,gsm8k,90,100\n", "not UTF-8 text"),
    ],
)
def test_a_faulty_file_is_refused_with_a_sentence(tmp_path, text, problem):
    path = table(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_cells(path)
    assert str(path) in str(error.value)
    assert problem in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        read_cells(tmp_path / "none.csv")


def test_published_tables_are_known_by_their_header(tmp_path):
    assert is_cell_table(table(tmp_path, GOOD))
    assert is_cell_table(f"{table(tmp_path, GOOD)}#big/short")
    assert is_cell_table(table(tmp_path, "benchmark,mean_tokens\n")), "so that the missing column gets its sentence"
    assert is_cell_table(table(tmp_path, HEADER.encode() + b"\xff"))
    for text in ("", '{"id": "a", "accuracy": 1}\n', b"PAR1\x00\xff\x00accuracy", b"\x1f\x8b\x08"):
        assert not is_cell_table(table(tmp_path, text))
    assert not is_cell_table(tmp_path)
    assert not is_cell_table(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["questions/base.csv", "budget/base.csv", "lengths.csv"])
def test_our_own_results_are_not_taken_for_published_tables(name):
    assert not is_cell_table(ROOT / "results" / name)


def test_a_name_of_a_file_may_hold_the_mark_of_a_group(tmp_path):
    path = tmp_path / "a#1.csv"
    path.write_text(GOOD)
    assert split_spec(str(path)) == (path, None)
    assert split_spec(f"{path}#big/short") == (path, "big/short")
    assert split_spec("none.csv#a/b#c") == (Path("none.csv"), "a/b#c")
    assert split_spec(f"{path}#") == (path, None)


PATH = Path("t.csv")
GROUPS = {
    labels: [Cell("b", 1.0, 1.0)] for labels in [("7B", "original"), ("7B", "ours"), ("14B", "original"), ("q/x", "u")]
}


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [("7B/original", ("7B", "original")), ("ours", ("7B", "ours")), ("q/x/u", ("q/x", "u")), ("x/u", ("q/x", "u"))],
)
def test_a_group_is_named_by_all_its_labels_a_unique_end_or_a_unique_label(wanted, labels):
    assert select_group(PATH, GROUPS, wanted) == labels


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            "original",
            '"original" fits 2 of the groups of t.csv; write t.csv#LABELS with one of 7B/original, 14B/original.',
        ),
        (
            "none",
            '"none" fits none of the groups of t.csv; write t.csv#LABELS with one of 7B/original, 7B/ours, 14B/or',
        ),
        ("iginal", '"iginal" fits none'),
        (None, "t.csv holds 4 groups; write t.csv#LABELS"),
    ],
)
def test_an_unclear_group_is_refused_with_those_that_there_are(wanted, sentence):
    with pytest.raises(UserError) as error:
        select_group(PATH, GROUPS, wanted)
    assert str(error.value).startswith(sentence)


def test_the_only_group_needs_no_name():
    assert select_group(PATH, {(): [Cell("b", 1.0, 1.0)]}, None) == ()


def test_all_labels_win_over_an_end(tmp_path):
    groups = {labels: [] for labels in [("a", "b"), ("x", "a", "b")]}
    assert select_group(PATH, groups, "a/b") == ("a", "b")
