"""The image lock: which images there are, what each is built from, and which one a stage runs in.

Reads and writes containers/images.yaml. `images` names each image's local reference, the digest-pinned base and a digest
over everything else that goes into the build; `run_in.<engine>.<device>` repeats it under the key that a stage of dvc.yaml
lists in its `params`, so that dvc.lock holds the image's identity, and `host` where no container runs. `published` holds
the registry digest that `tldr images pull` takes; it is no parameter of any stage, since it changes nothing that runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import write_text
from stages._params import read_yaml

LOCK = Path("containers/images.yaml")
ENGINES = ("docker", "podman", "apptainer")
NAMES = ("cpu", "cuda")  # also the values of container.device: an image serves the device that it is named after
SHARED_INPUTS = ("image_checks.py",)  # files of containers/ that every image holds
OWN_INPUTS = ("Dockerfile", "*.lock", "*.txt", "verify.py")  # in the folder of an image; anything else is not copied
BASE_LINE = re.compile(r"^ARG BASE_IMAGE=(\S+)$", re.MULTILINE)
DIGEST = re.compile(r"(?:\S+@)?sha256:[0-9a-f]{64}")
REPOSITORY_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
HEADER = """\
# The image lock, written by `tldr images lock`. A stage of dvc.yaml lists its `run_in` key among its params: dvc.lock then
# says which image it ran in, and a changed image runs exactly its stages again.
"""


@dataclass(frozen=True)
class Image:
    """`reference` is the local name, whose tag is the start of `inputs`; `base` and `published` end in a digest."""

    name: str
    reference: str
    base: str
    inputs: str
    published: str | None = None


def read_images(root: Path) -> dict[str, Image]:
    """The image lock of the checkout `root`; UserError if it is missing or not whole."""
    document: Any = read_yaml(root / LOCK) if (root / LOCK).is_file() else None
    try:
        published = document["published"]
        for engine in ("host", *ENGINES):
            for name in NAMES:
                document["run_in"][engine][name]  # DVC reads these, and says less when one is missing
        return {name: Image(name, **document["images"][name], published=published[name]) for name in NAMES}
    except (KeyError, TypeError):
        raise UserError(
            f"{LOCK} is not a whole image lock; restore it with git, or write it anew with `tldr images lock`."
        ) from None


def input_files(root: Path, name: str) -> list[Path]:
    """The files of containers/ that the build of an image reads, sorted; the base image and the wheels come on top."""
    folder = root / "containers"
    own = [path for pattern in OWN_INPUTS for path in (folder / name).glob(pattern)]
    return sorted([*own, *(folder / shared for shared in SHARED_INPUTS)])


def inputs_digest(root: Path, name: str, base: str) -> str:
    """SHA-256 over the base reference and the names and contents of `input_files`."""
    folder = root / "containers"
    sums = [f"base {base}\n"]
    for path in input_files(root, name):
        sums.append(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    return f"sha256:{hashlib.sha256(''.join(sums).encode()).hexdigest()}"


def check_inputs(root: Path, image: Image) -> None:
    """UserError if the build files are not those that the lock was written for."""
    if inputs_digest(root, image.name, image.base) != image.inputs:
        raise UserError(
            f"containers/{image.name} has changed since {LOCK} was written; run `tldr images lock --digests-only`, "
            f"then `tldr images build {image.name}`."
        )


def dockerfile_base(root: Path, name: str) -> str:
    """The base image that the Dockerfile names; it must be pinned by digest."""
    path = root / "containers" / name / "Dockerfile"
    found = BASE_LINE.search(path.read_text(encoding="utf-8"))
    if found is None or not DIGEST.fullmatch(found[1]):
        raise UserError(f"{path} must hold a line ARG BASE_IMAGE=NAME:TAG@sha256:DIGEST; pin its base and run again.")
    return found[1]


def make_images(root: Path, bases: Mapping[str, str], published: Mapping[str, str | None]) -> dict[str, Image]:
    """The lock as the files of `root` make it; `bases` replaces the bases that the Dockerfiles name."""
    made = {}
    for name in NAMES:
        base = bases.get(name) or dockerfile_base(root, name)
        if not DIGEST.fullmatch(base):
            raise UserError(f"The base {base!r} of image {name} is not pinned; give it as NAME@sha256:DIGEST.")
        pushed = published.get(name)
        if pushed is not None and not REPOSITORY_DIGEST.fullmatch(pushed):
            raise UserError(f"The published image {pushed!r} is not pinned; give it as NAME@sha256:DIGEST.")
        inputs = inputs_digest(root, name, base)
        made[name] = Image(name, reference(name, inputs), base, inputs, pushed)
    return made


def reference(name: str, inputs: str) -> str:
    """The tag says what was built: it never moves, because other inputs have another one."""
    return f"tldr-reweight-{name}:{inputs.removeprefix('sha256:')[:12]}"


def write_images(root: Path, images: Mapping[str, Image]) -> None:
    """Write containers/images.yaml whole, each image once under `images` and as a YAML alias under `run_in`."""
    lines = [HEADER, "images:\n"]
    for name, image in images.items():
        lines.append(f"  {name}: &{name}\n")
        lines += [f"    {key}: {getattr(image, key)}\n" for key in ("reference", "base", "inputs")]
    lines += ["run_in:  # engine, then device\n", f"  host: {{{', '.join(f'{name}: host' for name in images)}}}\n"]
    aliases = ", ".join(f"{name}: *{name}" for name in images)
    lines += [f"  {engine}: {{{aliases}}}\n" for engine in ENGINES]
    lines.append("published:  # NAME@sha256:DIGEST in a registry, for `tldr images pull`\n")
    lines += [f"  {name}: {image.published or 'null'}\n" for name, image in images.items()]
    write_text(root / LOCK, "".join(lines))


def image_record(image: Image) -> dict[str, Any]:
    """What an image says of itself in /etc/tldr-image.json and what a result records."""
    return {"name": image.name, "base": image.base, "inputs": image.inputs}
