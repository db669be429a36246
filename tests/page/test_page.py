"""The text of the page: its sections, its numbers, that nothing is loaded and that nothing a model wrote is markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from stages.__main__ import main
from stages.cli._html import write_html
from stages.evidence.report import headline
from stages.evidence.tables import TASK, VERDICT, overview
from tests.page.conftest import Write
from tests.page.reading import Reader
from tests.page.toy_results import HOSTILE, answers, write_artifacts, write_toy

SECTIONS = ("result", "limits", "pareto", "ratio", "lengths", "budget", "flips", "provenance")


@pytest.fixture(scope="module")
def report(toy: Path) -> dict[str, object]:
    """What `tldr report --json` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(toy)
        answer = CliRunner().invoke(main, ["report", "--json"], prog_name="tldr")
    assert answer.exit_code == 0, answer.output
    loaded: dict[str, object] = json.loads(answer.stdout)
    return loaded


def test_every_section_is_there_with_its_heading_and_a_link(page: str) -> None:
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert set(SECTIONS) <= set(ids)
    links = {attributes["href"] for tag, attributes in reader.elements if tag == "a"}
    assert links == {f"#{name}" for name in SECTIONS}
    assert len(reader.headings) == len(SECTIONS)


def test_every_figure_says_what_it_shows(page: str) -> None:
    reader = Reader(page)
    plots = [attributes for tag, attributes in reader.elements if tag == "svg"]
    assert len(plots) == 2 + 3 + 2 + 2
    ids = {attributes.get("id") for _, attributes in reader.elements}
    assert all(set(str(plot["aria-labelledby"]).split()) <= ids for plot in plots)
    assert page.count("<figcaption>") == 4
    assert "baseline (n = 40)" in reader.text
    assert "n = 70 before, 67 after" in reader.text  # correct answers: 80 less the 5 questions that are always wrong


def test_the_numbers_are_those_of_the_json(page: str, report: dict[str, object]) -> None:
    (embedded,) = re.findall(r'<script type="application/json" id="report">(.*)</script>', page)
    assert json.loads(embedded) == report
    reader = Reader(page)
    assert headline(report) in reader.text.replace("INCONCLUSIVE : ", "INCONCLUSIVE: ")
    for row in overview(report).rows:
        cells = [row.pop(TASK), row.pop(VERDICT), *row.values()]
        starts = [index for index, cell in enumerate(reader.cells) if cell == cells[0]]
        assert any(reader.cells[start : start + len(cells)] == cells for start in starts), cells


def test_nothing_is_loaded(page: str) -> None:
    for tag, attributes in Reader(page).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert tag != "script" or attributes["type"] == "application/json"
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "action", "data", "xlink:href", "poster")
            assert not name.startswith("on")
            assert name != "href" or str(value).startswith("#")
            assert "url(" not in str(value) or re.fullmatch(r"url\(#[\w.-]+\)", str(value))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page


def test_what_a_model_wrote_is_text(page: str) -> None:
    assert HOSTILE in Reader(page).text
    assert "<script>alert" not in page
    assert page.count("<script") == 1


def test_names_of_questions_groups_and_runs_are_text(tmp_path: Path, write: Write) -> None:
    name = '<b onclick>$a_{&"'
    tables = answers(90, prefix=name), answers(50, lost=2, prefix=name)
    root = write_artifacts(write_toy(tmp_path / "checkout", *tables), *tables)
    text = write(root, f"{name}={root}/results/questions/base.csv")
    reader = Reader(text)
    assert "<b " not in text
    assert not any("onclick" in attributes for _, attributes in reader.elements)
    assert {f"{name}length-1", name} <= set(reader.cells)
    assert f"{name}q0" in reader.text


def test_the_bytes_are_the_same_every_time_and_few(toy: Path, page_file: Path, tmp_path: Path) -> None:
    write_html(toy, tmp_path / "again.html", [])
    assert (tmp_path / "again.html").read_bytes() == page_file.read_bytes()
    assert page_file.stat().st_size < 2_000_000
