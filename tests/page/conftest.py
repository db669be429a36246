"""The page of one toy run, made once, and a way to make others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stages.cli._html import write_html
from tests.page.toy_results import HOSTILE, answers, write_artifacts, write_toy

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """The text of the page of the results in a folder."""

    def page(root: Path, *runs: str) -> str:
        path = tmp_path / "out" / "page.html"
        write_html(root, path, list(runs))
        return path.read_text(encoding="utf-8")

    return page


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with results and artifacts, in which models write HTML; not to be changed."""
    tables = answers(100), answers(40, lost=3)
    root = write_toy(tmp_path_factory.mktemp("toy") / "checkout", *tables)
    return write_artifacts(root, *tables, text=f"{HOSTILE} answer 2")


@pytest.fixture(scope="session")
def page_file(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_html(toy, path, [])
    return path


@pytest.fixture(scope="session")
def page(page_file: Path) -> str:
    return page_file.read_text(encoding="utf-8")
