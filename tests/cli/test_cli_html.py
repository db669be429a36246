"""`tldr report --html`: which options go together, and what is said where a package is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stages.__main__ import main
from tests.page.toy_results import answers, write_toy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write_toy(tmp_path / "checkout", answers(100), answers(40))
    monkeypatch.chdir(root)
    return root


def tldr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="tldr")


def test_the_page_is_written_where_it_is_told(here: Path) -> None:
    answer = tldr("report", "--html", "pages/a.html", "--run", "other=results/questions/base.csv")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == ""
    assert answer.stderr == "Wrote pages/a.html.\n"
    text = (here / "pages" / "a.html").read_text()
    assert text.endswith("</html>")
    assert "other (n = 40)" in text


@pytest.mark.parametrize(
    "arguments",
    [("--html", "a.html", "--json"), ("--html", "a.html", "--markdown"), ("--run", "a=results/questions/base.csv")],
)
def test_options_that_do_not_go_together(here: Path, arguments: tuple[str, ...]) -> None:
    assert tldr("report", *arguments).exit_code == 2
    assert not (here / "a.html").exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_names_the_extra(here: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python does where an import is forbidden
    answer = tldr("report", "--html", "a.html")
    assert answer.exit_code == 2
    assert (
        answer.stderr == f"Error: The page needs the package {package}; install it with `pip install -e '.[html]'`.\n"
    )


def test_a_folder_is_not_a_file(here: Path) -> None:
    answer = tldr("report", "--html", "results")
    assert answer.exit_code == 2
    assert "results is a folder" in answer.stderr


def test_a_failed_page_leaves_the_former_one(here: Path) -> None:
    (here / "a.html").write_text("former")
    assert tldr("report", "--html", "a.html", "--run", "a=absent.csv").exit_code == 2
    assert (here / "a.html").read_text() == "former"
