"""The Python locks of the images: they agree with pyproject.toml, and every kind of disagreement is noticed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from containers.image_checks import Pin, read_lock
from containers.locks import LOCKS, TORCH, check_locks, image_requirements, pins, read_project, render, write_locks
from stages._errors import UserError
from tests.paths import ROOT

CPU, CPU_311, CUDA = (str(lock.path) for lock in LOCKS)
DOCKERFILE = "containers/cuda/Dockerfile"
DIGEST = "0" * 64
# manylinux_2_28 and every older tag, which pip takes one by one
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", str(TORCH), DOCKERFILE, CPU, CPU_311, CUDA):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def alter(path: Path, pattern: str, replacement: str) -> None:
    text, number = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
    assert number == 1, pattern
    path.write_text(text, encoding="utf-8")


def test_committed_locks_agree_with_pyproject() -> None:
    assert check_locks(ROOT) == []


def test_checked_copy_starts_without_disagreement(checkout: Path) -> None:
    assert check_locks(checkout) == []


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "sentence"),
    [
        (CPU, r"^trl==.*\n(    --hash.*\n)+", "", f"{CPU} lacks trl, which pyproject.toml asks for."),
        (CUDA, r"^trl==.*\n(    --hash.*\n)+", "", f"{CUDA} lacks trl, which pyproject.toml asks for."),
        (CPU, r"^torch==.*\n(    --hash.*\n)+", "", f"{CPU} lacks torch, which pyproject.toml asks for."),
        (CUDA, r"^trl==\S+", "trl==1.15.0", f"{CUDA} holds trl 1.15.0, pyproject.toml asks for trl==1.16.0."),
        (CUDA, r"^aiohttp==\S+", "aiohttp==3.1", f"{CUDA} holds aiohttp 3.1, {CPU} holds {{aiohttp}}."),
        (CPU, r"\A", f"dvc==3.67.1 --hash=sha256:{DIGEST}\n", f"{CPU} holds dvc, which belongs to the host"),
        (CUDA, r"\A", f"Docker==7 --hash=sha256:{DIGEST}\n", f"{CUDA} holds docker, which belongs to the host"),
        (CPU, r"^yarl==(\S+) (\\\n    --hash\S+\s+)+", r"yarl==\1\n", f"{CPU} holds yarl without a hash."),
        (CUDA, r"\A", f"nvidia-nvtx==13 --hash=sha256:{DIGEST}\n", f"{CUDA} holds nvidia-nvtx, which comes from"),
        (CPU, r"^(torch==.*\n    --hash=sha256:)[0-9a-f]{64}", rf"\g<1>{DIGEST}", f"{CPU} does not hold torch as"),
        (str(TORCH), r"^torch==\S+", "torch==2.12.0+cpu", f"{TORCH} holds torch 2.12.0+cpu, {{asks}} the CPU build of"),
        (str(TORCH), r"^torch==\S+", "torch==2.13.0", f"{TORCH} holds torch 2.13.0, {{asks}} the CPU build of torch==2.13.0."),
        ("pyproject.toml", r"vllm==\S+\"", 'vllm==0.32.0"', f"{DOCKERFILE} builds on vLLM 0.31.0, {{asks}} vllm==0.32.0."),
        ("pyproject.toml", r"\"trl==\S+\"", '"trl==2"', f"{CPU_311} holds trl 1.16.0, {{asks}} trl==2."),
        (CPU, r"^aiohttp==", "aiohttp>=", "A lock holds a line that is not NAME==VERSION --hash=sha256:DIGEST: 'aiohttp>="),
    ],
)  # fmt: skip
def test_disagreement_is_said(checkout: Path, name: str, pattern: str, replacement: str, sentence: str) -> None:
    aiohttp = pins(checkout / CPU)["aiohttp"]
    alter(checkout / name, pattern, replacement)
    wanted = sentence.format(asks="pyproject.toml asks for", aiohttp=aiohttp)
    assert any(said.startswith(wanted) for said in check_locks(checkout)), check_locks(checkout)


def test_missing_lock_is_said(checkout: Path) -> None:
    (checkout / CUDA).unlink()
    assert check_locks(checkout) == [f"{CUDA} does not exist."]


@pytest.mark.parametrize("path", [CPU, CPU_311, CUDA])
def test_every_entry_has_a_hash_and_stands_once(path: str) -> None:
    entries = read_lock((ROOT / path).read_text(encoding="utf-8"))
    assert all(pin.hashes for pin in entries)
    assert len({pin.name for pin in entries}) == len(entries) > 80


def test_images_hold_what_stages_need_and_nothing_of_the_host() -> None:
    names = {requirement.name for requirement in image_requirements(read_project(ROOT))}
    assert {"click", "pydantic", "trl", "lm-eval", "setuptools"} <= names
    assert not names & {"dvc", "docker", "pytest", "uv", "vllm"}


def test_antlr_is_the_one_that_the_host_can_have_beside_dvc() -> None:
    assert {pins(ROOT / lock.path)["antlr4-python3-runtime"] for lock in LOCKS} == {"4.9.3"}


def test_lock_is_read_as_it_is_written() -> None:
    written = [Pin("a", "1.0", (DIGEST,)), Pin("ruamel-yaml", "2+cpu", ("1" * 64, "2" * 64))]
    assert read_lock("# comment\n\n" + render(written)) == written
    assert read_lock(f"Ruamel.YAML==3 --hash=sha256:{DIGEST}  # why") == [Pin("ruamel-yaml", "3", (DIGEST,))]


@pytest.mark.parametrize("line", ["a>=1", "a==", "--index-url x", "a==1 --hash=md5:00", "a==1 ; python_version < '3'"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not NAME==VERSION"):
        read_lock(line)


def test_pins_of_no_lock_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; run `tldr images lock`"):
        pins(tmp_path / "requirements.lock")
    (tmp_path / "requirements.lock").write_text("a>=1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"is no lock .* run `tldr images lock`"):
        pins(tmp_path / "requirements.lock")


def test_missing_uv_says_what_to_install(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (checkout / CPU).read_bytes()
    monkeypatch.setenv("PATH", str(checkout))
    monkeypatch.setattr(sys, "executable", str(checkout / "python3"))
    with pytest.raises(UserError, match=re.escape("pip install -e '.[lock]'")):
        write_locks(checkout)
    assert (checkout / CPU).read_bytes() == before


@pytest.mark.containers
def test_cuda_lock_can_be_installed_on_its_python(tmp_path: Path) -> None:
    """What the build of the cuda image will do, without its base: every file exists and fits, with a hash of the lock."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--require-hashes"]
    command += [
        "--no-deps",
        "--python-version=3.12",
        "--implementation=cp",
        f"--target={tmp_path}",
        "--requirement",
        CUDA,
    ]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
