"""What a container sees and may do, the same for every engine: the rule is that nothing is there but what a stage needs.

The checkout lies at its own absolute path, read-only. Writable are the folders that the stage's outputs go to, with
everything else in them covered read-only again, and the stage's scratch folders. There is no network, no capability, no
new privilege, a read-only root, and /tmp in memory. Nothing is read or written here but folders that are made.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from containers.images import Image
from containers.stage_files import StageFiles
from containers.strays import labels
from stages._errors import UserError
from stages._param_blocks import ContainerParams
from stages._params import Params
from stages.cli._project import INSIDE, inside_folder, work_name
from stages.data.pins import source_pins

PASSED_ON = ("TLDR_RUN_ID", "TLDR_DEBUG", "NO_COLOR", "TERM", "HF_ENDPOINT")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
WATCHDOG = ("tini", "--", "python3", "-m", "containers.inside")
GIB = 1024**3
GPU_NAMES = re.compile(r"(?:\d+|(?:GPU|MIG)-[\w/-]+)(?:,(?:\d+|(?:GPU|MIG)-[\w/-]+))*")
HIDDEN = (".dvc/config.local", ".git/config", ".env")  # where the secrets of a checkout lie; a stage needs none
TOKEN = Path("/run/secrets/hf_token")
VERIFY = "/opt/tldr/verify.py"


@dataclass(frozen=True)
class Mount:
    """A host path at the same path in the container, unless `target` says another."""

    source: Path
    writable: bool = False
    target: Path | None = None

    @property
    def place(self) -> Path:
        return self.target or self.source


@dataclass(frozen=True)
class Limits:
    """Bytes and counts; `memory` None: no limit."""

    shm: int
    memory: int | None
    pids: int


@dataclass(frozen=True)
class Sandbox:
    """One container: mounts in the order in which they are laid over each other."""

    image: Image
    command: tuple[str, ...]
    workdir: Path
    mounts: tuple[Mount, ...]
    environment: Mapping[str, str]
    user: tuple[int, int]
    groups: tuple[int, ...]
    limits: Limits
    gpus: tuple[str, ...] = ()  # indices or UUIDs of the GPUs, or ("all",)
    network: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole process line: tini, the watchdog, and what it runs."""
        return (*WATCHDOG, *self.command)


def stage_sandbox(root: Path, params: Params, stage: str, files: StageFiles, image: Image) -> Sandbox:
    """The container of a stage of the checkout `root`; makes the folders that it mounts."""
    scratch = scratch_folders(root, stage)
    outside = [path for path in (*files.inputs, *_short_model(root, params)) if _lies_outside(path, root)]
    mounts = [
        Mount(root),
        *_hidden(root),
        *(Mount(path.resolve(), target=path) for path in outside),
        *(Mount(path) for path in _hub_cache()),
        *output_mounts(root, files.outputs),
        *(Mount(folder, writable=True) for folder in scratch),
    ]
    return Sandbox(
        image,
        ("python3", "-m", "stages", "run", stage),
        root,
        tuple(mounts),
        environment(params.container.engine) | OFFLINE,
        (os.getuid(), os.getgid()),
        tuple(sorted(set(os.getgroups()) - {os.getgid()})),
        limits(params.container),
        gpus=visible_gpus() if image.name == "cuda" else (),
        labels=labels(root, stage),
    )


def fetch_sandbox(root: Path, params: Params, arguments: list[str], token: Path | None, image: Image) -> Sandbox:
    """The container of `tldr fetch`: a network, and a checkout that is writable but for its code and history."""
    fetched = [params.model.path, params.ratio.short_bound.path or "", *(file.path for file in params.fetch.data or ())]
    fetched += [pin.path for pin in source_pins(root, params)]
    open_to_it = {".tldr", *(Path(path).parts[0] for path in fetched if path)}
    covered = [path for path in sorted(root.iterdir()) if path.name not in open_to_it and not path.is_symlink()]
    mounts = [Mount(root, writable=True), *(Mount(path) for path in covered), *_hidden(root)]
    variables = environment(params.container.engine)
    if token is not None:
        mounts.append(Mount(token.resolve(), target=TOKEN))
        variables["HF_TOKEN_PATH"] = str(TOKEN)
    return Sandbox(
        image,
        ("python3", "-m", "stages", "fetch", *arguments),
        root,
        tuple(mounts),
        variables,
        (os.getuid(), os.getgid()),
        (),
        limits(params.container),
        network=True,
        labels=labels(root, "fetch"),
    )


def verify_sandbox(root: Path, params: Params, image: Image, *, gpu: bool) -> Sandbox:
    """The container of `tldr images verify`: no file of the machine but the code of the watchdog and a scratch folder."""
    return Sandbox(
        image,
        ("python3", VERIFY, *(["--gpu"] if gpu else [])),
        root,
        (Mount(root / "containers"), Mount(scratch_folders(root, "verify")[1], writable=True)),
        environment(params.container.engine) | OFFLINE,
        (os.getuid(), os.getgid()),
        (),
        limits(params.container),
        gpus=visible_gpus() if gpu else (),
        labels=labels(root, f"verify {image.name}"),
    )


def scratch_folders(root: Path, stage: str) -> tuple[Path, Path]:
    """Partial work of the stage, and the folder where the process inside says how it ended."""
    folders = root / ".tldr" / "work" / work_name(stage), inside_folder(root, stage)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def output_mounts(root: Path, outputs: tuple[Path, ...]) -> Iterator[Mount]:
    """The parent folder of every output, writable (outputs are renamed into place), and what else is in it, read-only.

    UserError for an output outside `root` or directly in it, which would make the whole checkout writable.
    """
    parents = {output.parent for output in outputs}
    for parent in parents:
        if root not in parent.parents:
            raise UserError(
                f"An output of the stage lies in {parent}, which is no folder of the checkout; move it to one, such as "
                "artifacts/, in dvc.yaml."
            )
        parent.mkdir(parents=True, exist_ok=True)
    tops = sorted(p for p in parents if not any(other in p.parents for other in parents))
    for top in tops:
        yield Mount(top, writable=True)
        yield from _covered(top, frozenset(outputs), parents)


def _covered(folder: Path, outputs: frozenset[Path], parents: set[Path]) -> Iterator[Mount]:
    for path in sorted(folder.iterdir()):
        if path in outputs or path.is_symlink() or path.suffix == ".tmp":  # a killed run's: its name may come again
            continue
        if path.is_dir() and any(path == parent or path in parent.parents for parent in parents):
            yield from _covered(path, outputs, parents)
        else:
            yield Mount(path)


def environment(engine: str) -> dict[str, str]:
    """What the process inside is told. On a terminal it draws for one, as wide as this one."""
    values = {INSIDE: engine} | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if sys.stderr.isatty():
        import shutil

        size = shutil.get_terminal_size()
        values |= {"TTY_COMPATIBLE": "1", "COLUMNS": str(size.columns), "LINES": str(size.lines)}
    return values


def limits(container: ContainerParams) -> Limits:
    memory = None if container.memory_gb is None else int(container.memory_gb * GIB)
    return Limits(int(container.shm_gb * GIB), memory, container.pids_limit)


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES of the caller names, else all; UserError if it hides every GPU."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return ("all",)
    named = tuple(name.strip() for name in text.split(",") if name.strip())
    if not named or not GPU_NAMES.fullmatch(",".join(named)):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES = {text!r} leaves no GPU to container.device = cuda; unset it, name GPUs by number "
            "or UUID, or set container.device to cpu."
        )
    return named


def _short_model(root: Path, params: Params) -> tuple[Path, ...]:
    path = params.ratio.short_bound.path
    return () if path is None else (root / path,)


def _lies_outside(path: Path, root: Path) -> bool:
    """Also for a link in the checkout to a place outside it, such as a shared DVC cache."""
    return path.exists() and not path.resolve().is_relative_to(root.resolve())


def _hub_cache() -> tuple[Path, ...]:
    """The Hugging Face cache, for model folders whose files are links into it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    return (folder,) if folder.is_dir() else ()


def _hidden(root: Path) -> Iterator[Mount]:
    """An empty file over each file that may hold a password."""
    return (Mount(Path("/dev/null"), target=root / name) for name in HIDDEN if (root / name).is_file())
