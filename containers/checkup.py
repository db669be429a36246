"""What `tldr doctor` says of containers: engine, GPUs and their driver, disk of the engine, images, stray containers.

Each line is (name, verdict PASS | WARN | FAIL, sentence). Nothing is changed but by `clean`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from containers import docker_engine, strays
from containers.building import state
from containers.gpus import CUDA_FLOOR, check_driver, read_gpus
from containers.images import read_images
from stages._errors import TldrError, UserError
from stages._param_blocks import ContainerParams

Line = tuple[str, str, str]
IMAGE_BYTES = {"cpu": 4_000_000_000, "cuda": 40_000_000_000}  # free space below which an image is not likely to fit


def check_containers(root: Path, container: ContainerParams) -> Iterator[Line]:
    """All lines; FAIL only for what container.engine and container.device ask for."""
    api, reason = _docker()
    info = {} if api is None else api.info()
    yield _engine(container.engine, info, reason)
    yield gpu_line(container)
    if container.engine == "docker" and container.device == "cuda" and api is not None:
        yield _attempt("gpu runtime", lambda: docker_engine.check_gpus(info), "the daemon hands out NVIDIA GPUs")
    yield from _images(root, container, info)
    if api is not None:
        yield _strays(api)


def _docker() -> tuple[Any, str]:
    try:
        return docker_engine.open_client(), ""
    except UserError as error:
        return None, str(error)


def _engine(engine: str, info: dict[str, Any], reason: str) -> Line:
    if engine == "host":
        others = f"Docker {info['ServerVersion']} is there too" if info else reason
        return "engine", "PASS", f"host: stages run in this Python; {others.rstrip('.')}"
    if engine == "docker":
        return ("engine", "PASS", f"Docker {info['ServerVersion']}") if info else ("engine", "FAIL", reason)
    try:
        answer = subprocess.run([engine, "--version"], capture_output=True, text=True)
    except FileNotFoundError:
        return "engine", "FAIL", f"{engine} is not installed; install it, or set container.engine to another."
    if answer.returncode != 0:
        return "engine", "FAIL", f"{engine} --version fails: {answer.stderr.strip()[:200]}; reinstall it."
    return "engine", "PASS", answer.stdout.strip()


def gpu_line(container: ContainerParams) -> Line:
    """The GPUs and whether their driver is new enough for the CUDA of the images."""
    wanted = "FAIL" if container.device == "cuda" else "WARN"
    gpus = read_gpus()
    if not gpus:
        verdict = "FAIL" if container.device == "cuda" else "PASS"
        return "gpu", verdict, "no NVIDIA GPU; container.device has to be cpu"
    names = ", ".join(f"{name} ({memory})" for name, _, memory in gpus)
    return _attempt("gpu", check_driver, f"{names}, driver {gpus[0][1]}, new enough for CUDA {CUDA_FLOOR}", wanted)


def _images(root: Path, container: ContainerParams, info: dict[str, Any]) -> Iterator[Line]:
    """State of the images that the stages need, and room for those that are missing."""
    if container.engine == "host":
        return
    try:
        images = read_images(root)
    except UserError as error:
        yield "images", "FAIL", str(error)
        return
    for name in dict.fromkeys(("cpu", container.device)):
        found = state(root, images[name], container.engine)
        advice = "" if found == "ready" else f"; run `tldr images build {name}` or `tldr images pull {name}`."
        yield f"image {name}", "PASS" if found == "ready" else "FAIL", f"{images[name].reference}: {found}{advice}"
        if found != "ready":
            yield from _room(name, Path(info.get("DockerRootDir") or root))


def _room(name: str, folder: Path) -> Iterator[Line]:
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < IMAGE_BYTES[name]:
            yield f"disk {name}", "WARN", f"{free / 1e9:.1f} GB free in {folder}; the image {name} may not fit."


def _strays(api: Any) -> Line:
    left = strays.strays(api)
    if not left:
        return "containers", "PASS", "none left behind"
    short = ", ".join(identity[:12] for identity in left)
    return "containers", "WARN", f"left behind by a run that was killed: {short}; run `tldr doctor --clean`."


def clean() -> list[str]:
    """Remove the stray containers of the Docker daemon; their short ids."""
    api, _ = _docker()
    left = [] if api is None else strays.strays(api)
    strays.remove(api, left)
    return [identity[:12] for identity in left]


def _attempt(name: str, check: Any, passed: str, verdict: str = "FAIL") -> Line:
    try:
        check()
    except TldrError as error:
        return name, verdict, str(error)
    return name, "PASS", passed
