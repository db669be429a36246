"""The engines `podman` and `apptainer`, through their command lines: what they are called with, and how they are run.

Podman's Docker-compatible API drops GPU requests (podman issue 22645), hence its command. Both are children of this
process and hold a pipe to it as standard input, whose end tells the watchdog inside that this process has died.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO

from containers.gpus import check_driver
from containers.images import Image
from containers.sandbox import Sandbox
from containers.strays import LABEL
from containers.streams import LineWriter
from stages._errors import StageFailed, UserError
from stages._signals import handled

TMPFS = "/tmp:rw,exec,nosuid,nodev,mode=1777"
SIF_FOLDER = "TLDR_SIF_DIR"  # where the image files of apptainer lie; default: .tldr/images of the checkout


def podman_argv(sandbox: Sandbox, *, rootless: bool, ulimits: Mapping[str, int]) -> list[str]:
    """`podman run` for `sandbox`. Rootless podman maps the caller to itself with keep-id; podman's own default of
    `ulimits` (nofile, nproc) cannot be set where the caller's are lower."""
    limits = sandbox.limits
    memory = [] if limits.memory is None else [f"--memory={limits.memory}", f"--memory-swap={limits.memory}"]
    entrypoint = ", ".join(f'"{word}"' for word in sandbox.argv[:2])
    return [
        *("podman", "run", "--rm", "--interactive", "--pull=never", "--log-driver=none"),
        "--user={}:{}".format(*sandbox.user),
        *(["--userns=keep-id"] if rootless else []),
        *(f"--group-add={group}" for group in sandbox.groups if not rootless),
        *("--cap-drop=all", "--security-opt=no-new-privileges", "--security-opt=label=disable"),
        *("--read-only", "--read-only-tmpfs=false", f"--tmpfs={TMPFS}"),
        *([] if sandbox.network else ["--network=none"]),
        *("--ipc=private", f"--shm-size={limits.shm}", f"--pids-limit={limits.pids}", *memory),
        *(f"--ulimit={name}={value}:{value}" for name, value in ulimits.items()),
        *(f"--mount=type=bind,source={m.source},destination={m.place}{_access(m.writable)}" for m in sandbox.mounts),
        *(f"--env={name}={value}" for name, value in sandbox.environment.items()),
        *(f"--label={name}={value}" for name, value in sandbox.labels.items()),
        *(f"--device=nvidia.com/gpu={gpu}" for gpu in sandbox.gpus),
        f"--workdir={sandbox.workdir}",
        f"--entrypoint=[{entrypoint}]",
        sandbox.image.reference,
        *sandbox.argv[2:],
    ]


def check_paths(sandbox: Sandbox, separators: str) -> None:
    """UserError for a path that the engine's own grammar of mounts would take apart."""
    for mount in sandbox.mounts:
        if set(separators) & set(f"{mount.source}{mount.place}"):
            raise UserError(
                f"{mount.place} holds one of the characters {' '.join(separators)}, at which the engine splits a mount; "
                "rename the folder, or set container.engine to docker."
            )


def caller_ulimits(max_processes: int) -> dict[str, int]:
    """Open files: the caller's own hard limit. Processes are counted over all that the user runs, hence the factor 4."""
    import resource

    files, processes = (resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    wanted = 4 * max_processes
    return {"nofile": files, "nproc": wanted if processes == resource.RLIM_INFINITY else min(wanted, processes)}


def apptainer_argv(sandbox: Sandbox, sif: Path, scratch: Path) -> list[str]:
    """`apptainer exec` for `sandbox`. The image file is read-only by nature; `scratch` holds /tmp, whose default is 64 MB.

    Users, capabilities and new privileges are those of the caller, less all of them; limits are the batch system's.
    """
    gpus = [] if not sandbox.gpus else ["--nv"]
    visible = [] if sandbox.gpus in ((), ("all",)) else [f"--env=CUDA_VISIBLE_DEVICES={','.join(sandbox.gpus)}"]
    return [
        *("apptainer", "exec", "--containall", "--cleanenv", "--no-privs", "--no-home"),
        *([] if sandbox.network else ["--net", "--network=none"]),
        *gpus,
        f"--workdir={scratch}",
        *(f"--bind={m.source}:{m.place}:{'rw' if m.writable else 'ro'}" for m in sandbox.mounts),
        *(f"--env={name}={value}" for name, value in sandbox.environment.items()),
        *visible,
        f"--pwd={sandbox.workdir}",
        str(sif),
        *sandbox.argv,
    ]


def _access(writable: bool) -> str:
    return "" if writable else ",readonly"


def sif_path(root: Path, image: Image) -> Path:
    """Where the image file of `image` lies: its name says what it was built from."""
    folder = Path(os.environ.get(SIF_FOLDER, root / ".tldr" / "images"))
    return folder / f"{image.reference.replace(':', '-')}.sif"


def check_podman(image: Image, *, gpu: bool) -> None:
    """UserError if podman or the locked image is not here."""
    _check_command("podman")
    answer = subprocess.run(
        ["podman", "image", "inspect", "--format", f'{{{{index .Labels "{LABEL}.inputs"}}}}', image.reference],
        capture_output=True,
        text=True,
    )
    if answer.returncode != 0 or answer.stdout.strip() != image.inputs:
        what = "is not on this machine" if answer.returncode else "was not built from the locked inputs"
        raise UserError(
            f"podman's image {image.reference} {what}; run `tldr images build {image.name} --engine podman`."
        )
    if gpu:
        check_driver()


def check_apptainer(image: Image, sif: Path, *, gpu: bool) -> None:
    """UserError if apptainer or the image file is not here."""
    _check_command("apptainer")
    if not sif.is_file():
        raise UserError(
            f"{sif} does not exist; run `tldr images build {image.name} --engine apptainer`, or copy it there."
        )
    if gpu:
        check_driver()


def _check_command(name: str) -> None:
    if shutil.which(name) is None:
        raise UserError(f"The command {name} is not on this machine; install it, or set container.engine to another.")


def run(argv: list[str]) -> int:
    """Run the command to its end on this terminal; its exit code, 128 + n after signal n."""
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches it through this process only, once
        )
    except OSError as error:
        raise StageFailed(f"{argv[0]} could not be started: {error.strerror}; run `tldr doctor`.") from None

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    with handled({signal.SIGINT: pass_on, signal.SIGTERM: pass_on}):
        _copy_output(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


def _copy_output(child: subprocess.Popen[bytes]) -> None:
    pairs = ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
    copies = [
        threading.Thread(target=_copy, args=(stream, LineWriter(ours.buffer, terminal=ours.isatty())))
        for stream, ours in pairs
    ]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join()


def _copy(stream: IO[bytes] | None, writer: LineWriter) -> None:
    for data in _fragments(stream):
        writer.write(data)
    writer.flush()


def _fragments(stream: IO[bytes] | None) -> Iterator[bytes]:
    assert stream is not None
    while data := os.read(stream.fileno(), 65536):
        yield data
