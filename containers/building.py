"""Builds and pulls images by the command lines of docker, podman and apptainer; the terminal is theirs.

Reads containers/images.yaml and the build files; a build goes out from the folder containers/. Every function that runs
a command ends in a UserError or StageFailed with the next step if the command fails.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from containers.command_engines import sif_path
from containers.images import Image, check_inputs
from containers.strays import LABEL
from stages._errors import StageFailed, UserError

OFFLINE = ("--network=none", "--build-arg=PIP_OPTIONS=--no-index")


def build_argv(root: Path, image: Image, engine: str, *, offline: bool) -> list[str]:
    """`docker build` or `podman build`; `offline`: packages come from containers/wheels only."""
    folder = root / "containers"
    return [
        *(engine, "build", f"--file={folder / image.name / 'Dockerfile'}", f"--tag={image.reference}"),
        *(f"--build-arg=BASE_IMAGE={image.base}", f"--build-arg=BASE_DIGEST={image.base.rpartition('@')[2]}"),
        f"--build-arg=INPUTS={image.inputs}",
        *(OFFLINE if offline else ()),
        str(folder),
    ]


def build(root: Path, image: Image, engine: str, *, offline: bool) -> None:
    """Build the image as it is locked. Apptainer takes it from the local Docker daemon, which builds it first."""
    check_inputs(root, image)
    run(build_argv(root, image, "podman" if engine == "podman" else "docker", offline=offline), f"build {image.name}")
    if engine == "apptainer":
        make_sif(root, image, f"docker-daemon:{image.reference}")


def pull(root: Path, image: Image, engine: str) -> None:
    """Take the published image, whose digest the lock holds, and give it its local name."""
    if image.published is None:
        raise UserError(
            f"The image {image.name} is not published: containers/images.yaml names no registry digest for it; run "
            f"`tldr images build {image.name}`, or lock one with `tldr images lock --published {image.name}=NAME@sha256:...`."
        )
    if engine == "apptainer":
        make_sif(root, image, f"docker://{image.published}")
        return
    run([engine, "pull", image.published], f"pull {image.name}")
    if (inputs := local_inputs(engine, image.published)) != image.inputs:
        raise UserError(
            f"{image.published} was built from other inputs ({inputs}) than containers/images.yaml locks for "
            f"{image.name}; run `tldr images build {image.name}`, or check out the commit that it was published from."
        )
    run([engine, "tag", image.published, image.reference], f"tag {image.name}")


def make_sif(root: Path, image: Image, source: str) -> None:
    """An apptainer image file, written whole."""
    path = sif_path(root, image)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    run(["apptainer", "build", "--force", str(part), source], f"convert {image.name}")
    part.replace(path)


def local_inputs(engine: str, reference: str) -> str | None:
    """The inputs digest that a local image carries; None if there is no such image, "" if it carries none."""
    template = f'{{{{index .Config.Labels "{LABEL}.inputs"}}}}'
    argv = [engine, "image", "inspect", "--format", template, reference]
    answer = subprocess.run(argv, capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else None


def state(root: Path, image: Image, engine: str) -> str:
    """`ready`, or what is wrong with the local image; engine is docker, podman or apptainer."""
    if shutil.which(engine) is None:
        return f"{engine} is not installed"
    if engine == "apptainer":
        return "ready" if sif_path(root, image).is_file() else "not here"
    if subprocess.run([engine, "version"], capture_output=True).returncode != 0:
        return f"{engine} does not answer"
    found = local_inputs(engine, image.reference)
    if found is None:
        return "not here"
    return "ready" if found == image.inputs else "built from other inputs"


def run(argv: list[str], what: str) -> None:
    """Run a command on this terminal; StageFailed if it ends badly."""
    if shutil.which(argv[0]) is None:
        raise UserError(f"The command {argv[0]} is not on this machine; install it, or choose another --engine.")
    code = subprocess.run(argv).returncode
    if code != 0:
        raise StageFailed(f"Could not {what}: `{argv[0]} {argv[1]}` ended with exit code {code}; its message is above.")
