"""The files of a lock, fetched ahead, so that an image can be built without a network.

Reads a lock; writes its wheels and sdists into a folder, by default containers/wheels/, from where the Dockerfiles install.
Run: `python -m containers.wheels containers/cpu/requirements.py311.lock` with the Python that the lock is for.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.tags import Tag, sys_tags
from packaging.utils import parse_wheel_filename

from containers.image_checks import Pin
from containers.locks import read_entries, render
from stages._errors import UserError

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
FOLDER = Path("containers/wheels")


def download_wheels(lock: Path, folder: Path) -> None:
    """Bring into `folder` what `lock` names and the folder does not hold yet, for the running interpreter.

    UserError when pip finds no file with a hash of the lock.
    """
    missing = missing_files(lock, folder)
    cpu_builds = [pin for pin in missing if pin.version.endswith("+cpu")]
    others = [pin for pin in missing if pin not in cpu_builds]
    if others and not _download(others, folder):
        raise UserError(
            f"pip could not get the files of {lock} (its reasons are above); see to the network and run again."
        )
    # PyTorch's own index only where pip's settings know no nearer place: one that cannot be reached costs many retries.
    if cpu_builds and not _download(cpu_builds, folder) and not _download(cpu_builds, folder, "--index-url", CPU_INDEX):
        raise UserError(f"pip could not get {cpu_builds[0].name} from {CPU_INDEX}; see to the network and run again.")


def missing_files(lock: Path, folder: Path) -> list[Pin]:
    """Entries of `lock` of which `folder` holds no file that this interpreter can install."""
    tags = frozenset(sys_tags())
    held = {_sha256(path) for path in folder.glob("*") if path.is_file() and _fits(path, tags)}
    return [pin for pin in read_entries(lock) if not held & set(pin.hashes)]


def _fits(path: Path, tags: frozenset[Tag]) -> bool:
    return path.suffix != ".whl" or bool(parse_wheel_filename(path.name)[3] & tags)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(pins: list[Pin], folder: Path, *options: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as part:
        part.write(render(pins))
        part.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"]
        command += ["--requirement", part.name, "--dest", str(folder), *options]
        return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    try:
        if len(sys.argv) != 2:
            raise UserError("Name one lock, such as containers/cpu/requirements.lock.")
        download_wheels(Path(sys.argv[1]), FOLDER)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(UserError.exit_code)
