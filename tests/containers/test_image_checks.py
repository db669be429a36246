"""The checks that run inside an image, against the environment that runs the tests and toys of what an image may lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from containers.image_checks import (
    FOLDERS,
    Contract,
    check_bytecode,
    check_folders,
    check_forbidden,
    check_imports,
    check_pins,
    check_variables,
    check_versions,
)
from tests.paths import ROOT

TOY = Contract("toy", (), "2+cpu", None, {"click": "8.5.1", "absent": "1"}, {"TOY_VERSION": "13.0"})


def statuses(checks: object) -> list[str]:
    return [check.status for check in checks]  # type: ignore[attr-defined]


def test_module_imports_the_standard_library_only() -> None:
    code = "import sys; before = set(sys.modules); import containers.image_checks; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) <= {"containers"}


def test_other_version_and_missing_package_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("click==8.5.1\nrich==0.1\nabsent==1\n", encoding="utf-8")
    check = check_pins(lock)
    assert check.status == "FAIL"
    assert check.message == "rich is 15.0.0, not 0.1; absent is None, not 1"
    lock.write_text("click==8.5.1\n", encoding="utf-8")
    assert check_pins(lock).status == "PASS"


def test_packages_of_the_base_are_compared() -> None:
    assert statuses(check_versions(TOY)) == ["PASS", "FAIL"]


def test_host_packages_are_found() -> None:
    assert statuses(check_forbidden()) == ["FAIL", "FAIL"]  # this environment has both


def test_import_that_fails_is_said_with_its_reason() -> None:
    good, bad = check_imports(("json", "no_such_module"))
    assert (good.status, bad.status) == ("PASS", "FAIL")
    assert bad.message == "ModuleNotFoundError: No module named 'no_such_module'"


def test_variable_must_begin_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_VERSION", raising=False)
    assert statuses(check_variables(TOY)) == ["FAIL"]
    monkeypatch.setenv("TOY_VERSION", "13.0.3")
    assert statuses(check_variables(TOY)) == ["PASS"]


def test_folders_are_made_and_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / "new" / name))
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.delenv("MPLCONFIGDIR")
    if os.getuid() == 0:
        monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "file"))  # root may create /unset
    failed = [check.name for check in check_folders() if check.status == "FAIL"]
    assert failed == ["HF_HOME", "MPLCONFIGDIR"]


def test_source_without_byte_code_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uncompiled.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert check_bytecode(("click", "uncompiled.part")).message == f"not compiled: {tmp_path / 'uncompiled.py'}"
    assert check_bytecode(("click",)).status == "PASS"
