"""The figures of the page as DVC plots: every plotted column is in a file that git tracks, and DVC finds it there."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages._io import write_csv
from stages._params import read_yaml
from stages.evidence.budget import budget_curve
from stages.evidence.estimates import question_tables
from stages.evidence.figures import length_edges, length_histogram, pareto_rows
from tests.page.toy_results import answers, control_row
from tests.paths import ROOT

PLOTS = {name: plot for entry in read_yaml(ROOT / "dvc.yaml")["plots"] for name, plot in entry.items()}
COLUMNS = [(name, path, column) for name, plot in PLOTS.items() for path, mine in plot["y"].items() for column in mine]
FIGURES = ("Ratio trajectory", "Control tokens", "Accuracy against tokens", "Lengths before and after")


def test_every_figure_has_a_plot() -> None:
    assert {*FIGURES, "Accuracy against token budget"} <= set(PLOTS)


@pytest.mark.parametrize(("name", "path", "column"), COLUMNS)
def test_a_plotted_column_is_in_a_tracked_result(name: str, path: str, column: str) -> None:
    with (ROOT / path).open(encoding="utf-8", newline="") as stream:
        header = next(csv.reader(stream))
    assert {column, PLOTS[name]["x"]} <= set(header)


@pytest.mark.dvc
def test_dvc_draws_what_the_functions_write(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    text = (tmp_path / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(text[text.index("\nplots:\n") :])
    results = tmp_path / "results"
    shares = {"lowest_share": 0.1, "highest_share": 0.9, "short_tokens": 50.0, "long_tokens": 100.0}
    write_csv(results / "simulated_ratio.csv", [{"step": step, "short_share": 0.5, **shares} for step in (0, 16)])
    write_csv(results / "ratio.csv", [control_row(step) for step in (16, 32)])
    write_csv(results / "lengths.csv", [{"role": "system1", "lower": 0, "upper": 25, "count": 3}])
    for side, tokens in (("base", 100), ("candidate", 40)):
        tables = question_tables(answers(tokens))
        write_csv(results / "budget" / f"{side}.csv", budget_curve(tables, [50, 200]))
        write_csv(results / "pareto" / f"{side}.csv", pareto_rows(tables))
        write_csv(results / "lengths" / f"{side}.csv", length_histogram(tables["tiny"], length_edges(640, 20)))
    for command in (["git", "init", "-q"], [sys.executable, "-P", "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    command = [sys.executable, "-P", "-m", "dvc", "plots", "show", "--json"]
    answer = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    drawn = json.loads(answer.stdout)
    assert drawn.get("errors", []) == []
    assert {name for name, plots in drawn["data"].items() if plots} == set(PLOTS)
