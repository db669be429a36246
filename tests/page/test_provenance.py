"""Where results come from, as the page says it: git, profile, artifacts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from stages._params import load_params
from stages.cli._origins import origins
from stages.page.document import Origins
from tests.page.toy_results import answers, write_artifacts, write_toy


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    answer = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return answer.stdout.strip()


def committed(tmp_path: Path) -> Path:
    """The checkout is a folder of the repository, not all of it."""
    root = write_toy(tmp_path / "work" / "checkout", answers(100), answers(40))
    git(root.parent, "init", "-q")
    git(root.parent, "add", "-A")
    git(root.parent, "commit", "-q", "-m", "start")
    return root


def found(root: Path) -> tuple[Origins, dict[str, str]]:
    origin = origins(root, load_params(root))
    return origin, dict(origin.facts)


def test_a_clean_checkout_names_its_revision_and_no_change(tmp_path: Path) -> None:
    root = committed(tmp_path)
    (root / "page.html").write_text("")
    origin, facts = found(root)
    assert facts["Git revision"] == git(root, "rev-parse", "HEAD")
    assert facts["Tracked files changed since"] == "none"
    assert facts["dvc.lock"] == "not in this checkout"
    assert facts["Engine"] == "toy 1.0"
    assert [rows for _, rows in origin.changes] == [[], []]
    assert [row["stage"] for row in origin.stages] == ["train", "evaluate@base", "evaluate@candidate"]


def test_what_was_changed_since_is_listed_key_by_key(tmp_path: Path) -> None:
    root = committed(tmp_path)
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("\nseed: 1 ", "\nseed: 5 ").replace("processes: 2 ", "processes: 3 "))
    origin, facts = found(root)
    assert facts["Seed"] == "5"
    assert facts["Tracked files changed since"] == "checkout/params.yaml"
    against = dict(origin.changes)
    changed = {"key": "engine.processes", "there": "2", "here": "3"}
    assert against["params.yaml against profile tiny"] == [changed]
    assert against["params.yaml against the git revision"] == [{"key": "seed", "there": "1", "here": "5"}, changed]


def test_a_key_that_the_revision_lacks_is_no_null(tmp_path: Path) -> None:
    root = committed(tmp_path)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("\nseed: 1 ", "\nseeds: 1 "))
    git(root, "commit", "-qam", "without a seed")
    (root / "params.yaml").write_text(text)
    rows = dict(found(root)[0].changes)["params.yaml against the git revision"]
    assert {"key": "seed", "there": "no such key", "here": "1"} in rows
    assert {"key": "seeds", "there": "1", "here": "no such key"} in rows


def test_without_git_it_says_so(tmp_path: Path) -> None:
    tables = answers(100), answers(40)
    root = write_artifacts(write_toy(tmp_path / "checkout", *tables), *tables)
    origin, facts = found(root)
    assert facts["Git revision"] == "not under git"
    assert facts["Libraries"] == "python 3.11.7, torch 9.9.9"
    assert [row["stage"] for row in origin.stages] == ["evaluate-base", "train"]
    assert [heading for heading, _ in origin.changes] == ["params.yaml against profile tiny"]
