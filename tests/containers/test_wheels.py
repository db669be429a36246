"""Files fetched ahead of an offline build: what is there is not fetched again, what does not fit does not count."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from containers.image_checks import Pin
from containers.locks import render
from containers.wheels import download_wheels, missing_files
from stages._errors import UserError
from tests.paths import ROOT

ANY, OTHER_PYTHON, SDIST = "toy-1.0-py3-none-any.whl", "toy-1.0-cp38-cp38-manylinux2014_x86_64.whl", "toy-1.0.tar.gz"


def lock_for(folder: Path, content: bytes) -> Path:
    """A lock beside `folder` whose one package has `content` as its file."""
    lock = folder.with_suffix(".lock")
    lock.write_text(render([Pin("toy", "1.0", (hashlib.sha256(content).hexdigest(),))]), encoding="utf-8")
    return lock


@pytest.mark.parametrize(("name", "fits"), [(ANY, True), (SDIST, True), (OTHER_PYTHON, False)])
def test_only_a_file_for_this_interpreter_counts(tmp_path: Path, name: str, fits: bool) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    lock = lock_for(folder, b"toy")
    assert [pin.name for pin in missing_files(lock, folder)] == ["toy"]
    (folder / name).write_bytes(b"toy")
    assert (missing_files(lock, folder) == []) == fits


def test_changed_file_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / ANY).write_bytes(b"tampered")
    assert missing_files(lock_for(folder, b"toy"), folder) != []


def test_whole_folder_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / ANY).write_bytes(b"toy")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    download_wheels(lock_for(folder, b"toy"), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {ANY: b"toy"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name one lock, such as containers/cpu/requirements.lock."),
        (["nosuch.lock"], "nosuch.lock does not exist; run `tldr images lock` to write it."),
        (["pyproject.toml"], "pyproject.toml is no lock"),
    ],
)
def test_a_wrong_lock_is_one_sentence(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "containers.wheels", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {said}") and len(done.stderr.splitlines()) == 1


def test_file_that_cannot_be_had_is_the_users_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "wheels"
    with pytest.raises(UserError, match="run again"):
        download_wheels(lock_for(folder, b"toy"), folder)
    assert list(folder.iterdir()) == []
