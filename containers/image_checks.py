"""What an image must hold, checked inside it: locked versions, imports, the build of torch, folders it may write.

Reads the lock that the image was installed from and /etc/tldr-image.json; writes only probes, which it removes. Copied into
every image beside its verify.py; run there as `python3 /opt/tldr/verify.py [--gpu] [--json]`, which prints one line per
check and exits with 1 if one failed. Standard library only until a check imports what it is about.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

RECORD = Path("/etc/tldr-image.json")
FORBIDDEN = ("dvc", "docker")  # belong to the host: a stage runs inside, it does not start stages or containers
FOLDERS = (
    "HOME",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "VLLM_CACHE_ROOT",
    "MPLCONFIGDIR",
    "NUMBA_CACHE_DIR",
)
STAGE_IMPORTS = (
    "accelerate",
    "click",
    "datasets",
    "huggingface_hub",
    "lm_eval",
    "math_verify",
    "numpy",
    "pyarrow",
    "pydantic",
    "rich",
    "ruamel.yaml",
    "safetensors",
    "scipy.stats",
    "tokenizers",
    "torch",
    "transformers",
    "trl.trainer.sft_trainer",  # `import trl` is lazy and proves nothing
)


@dataclass(frozen=True)
class Pin:
    """One entry of a lock; `name` is normalised, `hashes` are hex SHA-256 digests."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """What one image promises beyond its lock. `variables` maps a variable to how its value begins."""

    name: str
    imports: tuple[str, ...]
    torch: str
    torch_cuda: str | None
    versions: dict[str, str]
    variables: dict[str, str]


@dataclass(frozen=True)
class Check:
    status: Literal["PASS", "FAIL"]
    name: str
    message: str


def normalised(name: str) -> str:
    """The one spelling that the packaging standard gives a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> list[Pin]:
    """The entries of a lock; ValueError for a line that is not NAME==VERSION with SHA-256 hashes."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, equals, version = words[0].partition("==")
        hashes = tuple(word.removeprefix("--hash=sha256:") for word in words[1:])
        if not (equals and version) or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes):
            raise ValueError(f"not NAME==VERSION --hash=sha256:DIGEST: {line.strip()[:80]!r}")
        found.append(Pin(normalised(name), version, hashes))
    return found


def check_pins(lock: Path) -> Check:
    pins = read_lock(lock.read_text(encoding="utf-8"))
    found = [(pin, _installed(pin.name)) for pin in pins]
    wrong = [f"{pin.name} is {version}, not {pin.version}" for pin, version in found if version != pin.version]
    return _check("pins", not wrong, f"{len(pins)} packages as locked", "; ".join(wrong))


def check_versions(contract: Contract) -> Iterator[Check]:
    """Packages of the base image; a local suffix such as +cu130 names the build, not another version."""
    for name, version in contract.versions.items():
        found = _installed(name) or "absent"
        yield _check(name, found.partition("+")[0] == version, found, f"{found}, not {version}")


def check_imports(modules: tuple[str, ...]) -> Iterator[Check]:
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  whatever an import raises is the finding
            yield Check("FAIL", f"import {module}", f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            yield Check("PASS", f"import {module}", "imported")


def check_torch(contract: Contract) -> Check:
    import torch

    found = f"{torch.__version__}, CUDA {torch.version.cuda}"
    wanted = f"{contract.torch}, CUDA {contract.torch_cuda}"
    return _check("torch", found == wanted, found, f"{found}; this image promises {wanted}")


def check_gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("FAIL", "gpu", "torch sees none; start the container with one, on a recent enough driver")
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
        driver = lines[0] if lines else driver
    return Check("PASS", "gpu", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, driver {driver}")


def check_variables(contract: Contract) -> Iterator[Check]:
    for name, start in contract.variables.items():
        value = os.environ.get(name, "")
        yield _check(name, value.startswith(start), value, f"{value!r} does not begin with {start}")


def check_forbidden() -> Iterator[Check]:
    for name in FORBIDDEN:
        there = importlib.util.find_spec(name) is not None or shutil.which(name) is not None
        yield _check(f"no {name}", not there, "absent", "installed, but belongs to the host")


def check_programs() -> Iterator[Check]:
    tini, python = shutil.which("tini"), shutil.which("python3")
    yield _check("tini", tini is not None, f"{tini}", "not on PATH")
    yield _check("python3", python == sys.executable, f"{python}", f"PATH finds {python}, this is {sys.executable}")


def check_bytecode(modules: tuple[str, ...]) -> Check:
    """Nothing can be compiled at run time: the file system is read-only."""
    specs = [importlib.util.find_spec(module.partition(".")[0]) for module in modules]
    origins = [spec.origin for spec in specs if spec and spec.origin and spec.origin.endswith(".py")]
    bare = [path for path in origins if not Path(importlib.util.cache_from_source(path)).is_file()]
    return _check("bytecode", not bare, f"{len(origins)} packages compiled", "not compiled: " + ", ".join(bare))


def check_record(name: str) -> Check:
    """The file that says which image this is."""
    try:
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        found = f"{record['name']} on {record['base']}, inputs {record['inputs']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Check("FAIL", "record", f"{RECORD}: {type(error).__name__}: {error}")
    return _check("record", record["name"] == name, found, f"{found}; this is the verify script of {name}")


def check_folders() -> Iterator[Check]:
    """Each folder that libraries write to must come into being for any user id."""
    for name in FOLDERS:
        folder = Path(os.environ.get(name) or "/unset")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield Check("FAIL", name, f"{folder}: {error}")
        else:
            yield Check("PASS", name, f"{folder} is writable")


def check_executable_tmp() -> Check:
    """Triton and inductor compile into /tmp and load the result from there."""
    try:
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            program = Path(folder) / "probe"
            program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
            program.chmod(0o755)
            code = subprocess.run([program], check=False).returncode
    except OSError as error:
        return Check("FAIL", "/tmp", f"cannot run a program: {error}")
    return _check("/tmp", code == 0, "executable", f"a program ended with {code}")


def all_checks(contract: Contract, lock: Path, gpu: bool) -> Iterator[Check]:
    yield Check("PASS", "user", f"uid {os.getuid()}, gid {os.getgid()}{' (root)' if os.getuid() == 0 else ''}")
    yield check_record(contract.name)
    yield from check_programs()
    yield check_bytecode(contract.imports)
    yield check_pins(lock)
    yield from check_versions(contract)
    yield from check_forbidden()
    yield from check_variables(contract)
    yield from check_folders()
    yield check_executable_tmp()
    yield from check_imports(contract.imports)
    if "torch" in sys.modules:  # else its import has failed and been reported
        yield check_torch(contract)
        if gpu:
            yield check_gpu()


def main(contract: Contract, lock: Path) -> int:
    parser = argparse.ArgumentParser(description=f"Check the {contract.name} image from inside.")
    parser.add_argument("--gpu", action="store_true", help="also require a GPU that torch can use")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    checks, terminal = [], sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries may print while they are imported
        for check in all_checks(contract, lock, options.gpu):
            checks.append(check)
            if not options.json:
                print(check.status, check.name, check.message, file=terminal, flush=True)
    passed = all(check.status == "PASS" for check in checks)
    if options.json:
        print(json.dumps({"passed": passed, "checks": [asdict(check) for check in checks]}, indent=2))
    return 0 if passed else 1


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check(name: str, passed: bool, good: str, bad: str) -> Check:
    return Check("PASS", name, good) if passed else Check("FAIL", name, bad)
