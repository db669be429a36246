"""`tldr tiny`: nothing that exists is replaced unasked, and the frontier is printed as table and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.__main__ import main

pytest.importorskip("stages.tiny.frontier")


def test_build_refuses_to_replace_what_exists(checkout: Path) -> None:
    (checkout / "elsewhere" / "data" / "tiny").mkdir(parents=True)
    (checkout / "elsewhere" / "data" / "tiny" / "test.jsonl").write_text("{}\n")
    answer = CliRunner().invoke(main, ["tiny", "build", "--output", "elsewhere"])
    assert answer.exit_code == 2
    assert "elsewhere/data/tiny would be replaced; add --force, or --output FOLDER" in answer.stderr
    assert not (checkout / "elsewhere" / "models").exists()


def test_build_checks_the_parameters_first(checkout: Path) -> None:
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("num_steps: ", "num_steps: -"))
    answer = CliRunner().invoke(main, ["tiny", "build", "--output", "elsewhere"])
    assert answer.exit_code == 2
    assert "tiny.num_steps = -" in answer.stderr


def test_frontier_is_printed_as_table_and_json() -> None:
    table = CliRunner().invoke(main, ["tiny", "frontier", "--chains", "50"])
    assert table.exit_code == 0, table.output
    assert "oracle frontier" in table.stdout.lower()
    answer = CliRunner().invoke(main, ["tiny", "frontier", "--chains", "50", "--json"])
    assert answer.exit_code == 0, answer.output
    assert isinstance(json.loads(answer.stdout), dict)


def test_frontier_needs_at_least_one_chain() -> None:
    assert CliRunner().invoke(main, ["tiny", "frontier", "--chains", "0"]).exit_code == 2
