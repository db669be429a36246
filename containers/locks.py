"""The Python locks of the images: every package at one version, with hashes; written from pyproject.toml, and compared with it.

Reads pyproject.toml and containers/cpu/torch.txt; writes containers/*/requirements*.lock. Run: `tldr images lock`, or
`python -m containers.locks`. Needs `uv` (`pip install -e '.[lock]'`) and the package index.

An image holds `dependencies` and the extra `stages`, never DVC or Docker. The versions are those of one resolution that
also holds DVC (the host) and vLLM (the base of the cuda image), so host and images have the same ones. Torch and what it
brings for CUDA come from the cuda image's base, and for the cpu image from torch.txt.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from containers.image_checks import FORBIDDEN, Pin, normalised, read_lock
from stages._errors import UserError
from stages._io import write_text

PLATFORM = "x86_64-manylinux_2_28"
TORCH = Path("containers/cpu/torch.txt")
CUDA_BASE = re.compile(r"^ARG BASE_IMAGE=vllm/vllm-openai:v([^@\s]+)@", re.MULTILINE)
CUDA_FAMILY = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
BUILD = "setuptools"  # builds the packages that have no wheel; the Dockerfiles install it first
HEADER = """\
# Python {python}, {image} image. Written by `tldr images lock` from pyproject.toml; do not edit.
"""


@dataclass(frozen=True)
class Lock:
    image: str
    python: str
    path: Path


LOCKS = (
    Lock("cpu", "3.12", Path("containers/cpu/requirements.lock")),
    Lock("cpu", "3.11", Path("containers/cpu/requirements.py311.lock")),
    Lock("cuda", "3.12", Path("containers/cuda/requirements.lock")),
)
PYTHONS = sorted({lock.python for lock in LOCKS})


def write_locks(root: Path) -> None:
    """Write every lock anew; a version that a lock already holds stays where it still fits.

    UserError when uv is missing or finds no set of versions that satisfies all pins.
    """
    project = read_project(root)
    torch = read_lock((root / TORCH).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder) / "versions.txt"
        former = [f"{name}=={version}\n" for name, version in _former(root).items()]
        versions.write_text("".join(former), encoding="utf-8")
        resolve_everything(project, versions)
        resolved = {python: resolve_image(project, python, versions) for python in PYTHONS}
    for lock in LOCKS:
        pins = resolved[lock.python] + (torch if lock.image == "cpu" else [])
        write_text(root / lock.path, HEADER.format(image=lock.image, python=lock.python) + render(pins))


def resolve_everything(project: dict[str, Any], versions: Path) -> None:
    """Bring `versions` up to date: one version of each package for the host, both images and every Python.

    Each Python in turn prefers what the one before it chose, and the first comes again at the end: a package may be capped
    on one of them only (networkx 3.7 needs 3.12; vLLM's cap on setuptools is for 3.12).
    """
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["stages"], *extras["vllm"], BUILD]
    for python in (*PYTHONS, PYTHONS[0]):
        _compile(requirements, python, versions)


def resolve_image(project: dict[str, Any], python: str, versions: Path) -> list[Pin]:
    """The image's own packages at exactly those versions, without what comes from elsewhere.

    uv's pylock format says which file a hash belongs to, so a lock holds only the wheels that fit, or else the sdist.
    """
    output = versions.with_name(f"pylock.py{python.replace('.', '')}.toml")
    requirements = [str(requirement) for requirement in image_requirements(project)]
    _compile(requirements, python, output, "--format=pylock.toml", f"--constraint={versions}")
    packages = tomllib.loads(output.read_text(encoding="utf-8"))["packages"]
    return [
        Pin(package["name"], package["version"], tuple(file["hashes"]["sha256"] for file in _files(package)))
        for package in packages
        if not CUDA_FAMILY.fullmatch(package["name"])
    ]


def image_requirements(project: dict[str, Any]) -> list[Requirement]:
    """What pyproject.toml asks of every image."""
    wanted = [*project["dependencies"], *project["optional-dependencies"]["stages"], BUILD]
    return [requirement for requirement in map(Requirement, wanted) if normalised(requirement.name) not in FORBIDDEN]


def render(pins: list[Pin]) -> str:
    """Entries in pip's format, sorted by name."""
    lines = []
    for pin in sorted(pins, key=lambda pin: pin.name):
        hashes = [f"--hash=sha256:{digest}" for digest in sorted(pin.hashes)]
        lines.append(" \\\n    ".join([f"{pin.name}=={pin.version}", *hashes]) + "\n")
    return "".join(lines)


def pins(path: Path) -> dict[str, str]:
    """Version of each package in a lock, by normalised name; UserError for a file that is no lock."""
    return {pin.name: pin.version for pin in read_entries(path)}


def read_entries(path: Path) -> list[Pin]:
    """The entries of the lock `path`; UserError for a file that is no lock."""
    try:
        return read_lock(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run `tldr images lock` to write it.") from None
    except ValueError as error:
        raise UserError(f"{path} is no lock ({error}); run `tldr images lock` to write it anew.") from None


def check_locks(root: Path) -> list[str]:
    """One sentence for each way in which the locks and pyproject.toml disagree; `tldr images lock` puts most of them right."""
    project = read_project(root)
    try:
        torch = read_lock((root / TORCH).read_text(encoding="utf-8"))
        found = {lock: read_lock((root / lock.path).read_text(encoding="utf-8")) for lock in LOCKS}
    except FileNotFoundError as error:
        return [f"{Path(error.filename).relative_to(root)} does not exist."]
    except ValueError as error:
        return [f"A lock holds a line that is {error}."]
    sentences = list(_base_disagreements(root, project, torch))
    for lock, entries in found.items():
        sentences += _lock_disagreements(project, lock, entries, torch)
    return sentences + list(_version_disagreements(found))


def read_project(root: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _base_disagreements(root: Path, project: dict[str, Any], torch: list[Pin]) -> Iterator[str]:
    """The two hand-kept places that name a version of pyproject.toml again."""
    extras = project["optional-dependencies"]
    wanted = next(requirement for requirement in map(Requirement, extras["stages"]) if requirement.name == "torch")
    for pin in torch:
        if pin.name != "torch" or not pin.version.endswith("+cpu") or pin.version not in wanted.specifier:
            yield f"{TORCH} holds {pin.name} {pin.version}, pyproject.toml asks for the CPU build of {wanted}."
    dockerfile = Path("containers/cuda/Dockerfile")
    base = CUDA_BASE.search((root / dockerfile).read_text(encoding="utf-8"))
    vllm = Requirement(extras["vllm"][0])
    if base is None or base[1] not in vllm.specifier:
        yield f"{dockerfile} builds on vLLM {base[1] if base else 'of no known version'}, pyproject.toml asks for {vllm}."


def _lock_disagreements(project: dict[str, Any], lock: Lock, entries: list[Pin], torch: list[Pin]) -> Iterator[str]:
    held = {pin.name: pin for pin in entries}
    for requirement in image_requirements(project):
        pin = held.get(normalised(requirement.name))
        if pin is None and not (lock.image == "cuda" and CUDA_FAMILY.fullmatch(requirement.name)):
            yield f"{lock.path} lacks {requirement.name}, which pyproject.toml asks for."
        elif pin is not None and pin.version not in requirement.specifier:
            yield f"{lock.path} holds {pin.name} {pin.version}, pyproject.toml asks for {requirement}."
    for pin in entries:
        if pin.name in FORBIDDEN:
            yield f"{lock.path} holds {pin.name}, which belongs to the host and to no image."
        if not pin.hashes:
            yield f"{lock.path} holds {pin.name} without a hash."
        if CUDA_FAMILY.fullmatch(pin.name) and lock.image == "cuda":
            yield f"{lock.path} holds {pin.name}, which comes from the base image."
    if lock.image == "cpu" and render([pin for pin in entries if CUDA_FAMILY.fullmatch(pin.name)]) != render(torch):
        yield f"{lock.path} does not hold torch as {TORCH} has it."


def _version_disagreements(found: dict[Lock, list[Pin]]) -> Iterator[str]:
    """A package has one version, whatever the image and the Python."""
    seen: dict[str, tuple[str, Path]] = {}
    for lock, entries in found.items():
        for pin in entries:
            version, path = seen.setdefault(pin.name, (pin.version, lock.path))
            if version != pin.version:
                yield f"{lock.path} holds {pin.name} {pin.version}, {path} holds {version}."


def _former(root: Path) -> dict[str, str]:
    """Versions that the present locks hold, for uv to prefer; a lock that cannot be read has none."""
    versions: dict[str, str] = {}
    for lock in LOCKS:
        with contextlib.suppress(UserError):
            versions |= pins(root / lock.path)
    return {name: version for name, version in versions.items() if not CUDA_FAMILY.fullmatch(name)}


def _files(package: dict[str, Any]) -> list[dict[str, Any]]:
    return package.get("wheels") or [package["sdist"]]


def _compile(requirements: list[str], python: str, output: Path, *options: str) -> None:
    """uv reads the versions to prefer from `output`, if it exists, and writes its result there."""
    beside = Path(sys.executable).with_name("uv")
    uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if uv is None:
        raise UserError("uv is not installed; run `pip install -e '.[lock]'` and then this command again.")
    command = [uv, "pip", "compile", "-", "--quiet", "--no-header", "--no-annotate", f"--output-file={output}"]
    command += [f"--python-version={python}", f"--python-platform={PLATFORM}", *options]
    if subprocess.run(command, input="\n".join(requirements), text=True, check=False).returncode != 0:
        raise UserError(
            f"uv found no set of versions for Python {python} (its reasons are above); correct the pins in pyproject.toml."
        )


if __name__ == "__main__":
    try:
        write_locks(Path.cwd())
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
