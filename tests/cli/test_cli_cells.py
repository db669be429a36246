"""`tldr compare` on published tables: the paper's Table 1 is reproduced, and every unclear call ends in a sentence."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from stages._errors import UserError
from stages.cli._cells import cells_csv, cells_markdown, compare_cell_files, show_cells
from stages.cli.compare import command
from tests.paths import ROOT, SHARED_DATA

TABLE = str(ROOT / "docs" / "paper_table1.csv")
METHODS = (
    "TALE-EP",
    "ConciseCoT",
    "Avg. Merging",
    "Task-Arithmetic",
    "Ties",
    "Ties-Dare",
    "OverThink",
    "ThinkPrune",
    "CoT-Valve",
    "TLDR",
)
PRINTED = {  # A.C.R., percent: arXiv 2506.02678, Table 1
    "R1-Distill-Qwen-7B": (22.3, 12.7, 3.2, 61.3, 0.1, 8.3, 0.1, 12.6, 26.8, 44.9),
    "R1-Distill-Qwen-14B": (15.4, 18.8, 30.5, 60.2, 31.8, 33.0, 1.6, 22.8, 16.7, 35.8),
}


def paper() -> dict[str, dict]:
    report = compare_cell_files([TABLE], None)
    return {part["names"]["candidate"]: part for part in report["comparisons"]}


def test_all_twenty_printed_values_are_reproduced():
    found = paper()
    printed = {f"{base}/{name}": value for base in PRINTED for name, value in zip(METHODS, PRINTED[base], strict=True)}
    assert list(found) == list(printed)
    ours = {name: 100 * part["token_reduction"]["clipped_macro"] for name, part in found.items()}
    assert ours == pytest.approx(printed, abs=0.063)
    assert {name for name in printed if round(ours[name], 1) != printed[name]} == {"R1-Distill-Qwen-7B/TLDR"}


def test_the_committed_cells_are_those_of_the_shared_table():
    path = SHARED_DATA / "paper" / "table1.csv"
    if not path.is_file():
        pytest.skip("the shared data is not beside the checkout")
    assert Path(TABLE).read_text().splitlines() == path.read_text().splitlines()
    with (path.parent / "table1_acr.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["acr_pct"]]
    assert [float(row["acr_pct"]) for row in rows] == [*PRINTED["R1-Distill-Qwen-7B"], *PRINTED["R1-Distill-Qwen-14B"]]


@pytest.mark.parametrize(("name", "macro", "micro"), [("7B/TLDR", 44.8, 30.2), ("14B/TLDR", 35.8, 20.1)])
def test_signed_macro_and_micro_of_the_paper(name, macro, micro):
    reduction = paper()[f"R1-Distill-Qwen-{name}"]["token_reduction"]
    assert [round(100 * reduction[kind], 1) for kind in ("macro", "micro")] == [macro, micro]


def test_clipping_hides_growth():
    reduction = paper()["R1-Distill-Qwen-7B/Avg. Merging"]["token_reduction"]
    assert reduction["clipped_macro"] > 0 > reduction["micro"] > reduction["macro"]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_whole_table_in_every_form():
    report = json.loads(call(TABLE, "--json"))
    assert report["kind"] == "cells" and len(report["comparisons"]) == 20
    assert report["comparisons"][0]["token_reduction"]["ci"] is None
    assert "the paper's A.C.R." in call(TABLE, "--markdown")
    rows = list(csv.DictReader(io.StringIO(call(TABLE, "--csv"))))
    assert float(rows[9]["token_reduction_micro"]) == report["comparisons"][9]["token_reduction"]["micro"]
    assert "Published means, no intervals" in " ".join(call(TABLE).split())


def test_two_groups_against_each_other_and_one_against_its_baseline():
    names = [f"{TABLE}#R1-Distill-Qwen-7B/original", f"{TABLE}#R1-Distill-Qwen-7B/TLDR"]
    two, one = compare_cell_files(names), compare_cell_files(names[1:])
    assert two["token_reduction"] == one["token_reduction"] == paper()["R1-Distill-Qwen-7B/TLDR"]["token_reduction"]
    assert two["names"] == {"baseline": names[0], "candidate": names[1]}
    assert one["names"]["baseline"] == "R1-Distill-Qwen-7B/original"
    markdown = cells_markdown(two)
    assert "| asdiv | 86.8 | 93.0 | +6.2 | 769 | 147 | 80.9 |" in markdown
    assert "| 72.8 | +0.6 | 30.2 | 44.8 | 44.8 | +0.33 |" in markdown


def test_another_baseline_can_be_named():
    report = compare_cell_files([TABLE], "ThinkPrune")
    assert {part["names"]["baseline"].rpartition("/")[2] for part in report["comparisons"]} == {"ThinkPrune"}
    assert [part["labels"]["candidate"][-1] for part in report["comparisons"][:2]] == ["original", "TALE-EP"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_digit_is_cut_off_on_a_narrow_terminal(width):
    console = Console(file=io.StringIO(), width=width)
    show_cells(console, compare_cell_files([TABLE]))
    shown = console.file.getvalue()
    for part in paper().values():
        assert f"{100 * part['token_reduction']['micro']:.1f} " in shown
        assert f" {part['aes']['value']:+.2f}" in shown
    if width >= 80:
        assert max(map(len, shown.splitlines())) <= width


def write(tmp_path: Path, *rows: str) -> str:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["base,method,task,accuracy,tokens", *rows]) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("rows", "label", "sentence"),
    [
        (
            ("a,x,t,1,9", "b,y,t,1,9", "b,z,t,1,9"),
            "x",
            'There is no baseline "x" for b; choose --baseline-label among x, y, z',
        ),
        (
            ("a,x,t,1,9", "a,y,u,1,9"),
            None,
            "a/y cannot be compared with a/x: the benchmarks differ: t only in the baseline",
        ),
        (("a,x,t,1,9", "a,x,u,1,9"), None, "has no group to compare with a/x"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(tmp_path, rows, label, sentence):
    with pytest.raises(UserError) as error:
        compare_cell_files([write(tmp_path, *rows)], label)
    assert sentence in str(error.value)


def test_calls_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match="--baseline-label is for one table"):
        compare_cell_files([f"{TABLE}#7B", f"{TABLE}#7B"], "original")
    with pytest.raises(UserError, match="3 published tables are too many"):
        compare_cell_files([TABLE] * 3)
    with pytest.raises(UserError, match="benchmarks differ"):
        compare_cell_files([f"{TABLE}#R1-Distill-Qwen-7B/TLDR", write(tmp_path, "a,x,t,1,9")])
    with pytest.raises(UserError, match='"nobody" fits none'):
        compare_cell_files([f"{TABLE}#nobody"])


def test_a_pipe_in_a_label_stays_in_its_cell(tmp_path):
    report = compare_cell_files([write(tmp_path, "a,x,t,1,9", "a,y|z,t,1,9", "a,u,t,1,9")])
    assert r"| a/y\|z | x | 100.0 | +0.0 | 0.0 | 0.0 | 0.0 | +0.00 |" in cells_markdown(report)
    assert next(csv.DictReader(io.StringIO(cells_csv(report))))["group"] == "a/y|z"


def test_a_table_without_labels_is_compared_with_another(tmp_path):
    paths = []
    for name, tokens in (("before.csv", 100), ("after.csv", 75)):
        paths.append(str(tmp_path / name))
        Path(paths[-1]).write_text(f"benchmark,accuracy_pct,tokens\nt,80,{tokens}\n")
    report = compare_cell_files(paths)
    assert report["token_reduction"]["micro"] == 0.25
    assert report["names"] == {"baseline": paths[0], "candidate": paths[1]}
    with pytest.raises(UserError, match="has no group to compare"):
        compare_cell_files(paths[:1])
