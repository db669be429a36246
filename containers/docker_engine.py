"""The engine `docker`: create, attach, start, stream, and the exit code, through the docker SDK.

The container removes itself when it ends. If this process dies, even by SIGKILL, the watchdog inside
(`containers.inside`) sees that nobody holds its standard input and the lock any more, and ends the stage.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from containers.gpus import NO_GPU_RUNTIME, check_driver
from containers.images import Image
from containers.sandbox import Sandbox
from containers.strays import LABEL, remove, strays
from containers.streams import LineWriter
from stages._errors import StageFailed, UserError
from stages._signals import handled

NO_DAEMON = (
    "No Docker daemon answers ({reason}); start it (`sudo systemctl start docker`), or set container.engine to another "
    "engine."
)
DAEMON_LOST = (
    "The Docker daemon stopped while the stage ran; start it and run again to go on: finished answers and steps are "
    "kept. `tldr doctor --clean` removes a container that was left."
)
CALL_SECONDS = 60
EXIT_SECONDS = 10.0  # between the end of the output and the removal of the container


def open_client() -> Any:
    """The low-level client of the daemon that DOCKER_HOST names, or of the local one; UserError if none answers."""
    import docker

    try:
        client = docker.from_env(timeout=CALL_SECONDS)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise UserError(NO_DAEMON.format(reason=_no_answer(str(error)))) from None
    return client.api


def _no_answer(text: str) -> str:
    """Why, out of what the SDK says: the representation of an exception in an exception."""
    causes = {
        "Permission denied": "permission denied on its socket; your user is not in the group docker",
        "No such file": "its socket does not exist",
        "Connection refused": "connection refused",
    }
    return next((cause for said, cause in causes.items() if said in text), " ".join(text.split())[:120])


def find_image(api: Any, reference: str) -> dict[str, Any] | None:
    """What the daemon says of a local image, None if it has none of that name."""
    import docker

    try:
        answer: dict[str, Any] = api.inspect_image(reference)
    except docker.errors.ImageNotFound:
        return None
    return answer


def label_of(image: dict[str, Any], name: str) -> str | None:
    labels = (image.get("Config") or {}).get("Labels") or {}
    value: str | None = labels.get(f"{LABEL}.{name}")
    return value


def check_image(api: Any, image: Image) -> None:
    """UserError unless the local image of this name was built from the locked inputs."""
    found = find_image(api, image.reference)
    if found is None:
        raise UserError(
            f"The image {image.reference} is not on this machine; run `tldr images build {image.name}` or "
            f"`tldr images pull {image.name}`."
        )
    if label_of(found, "inputs") != image.inputs:
        raise UserError(
            f"The local image {image.reference} was not built from the inputs that containers/images.yaml locks; run "
            f"`tldr images build {image.name}`."
        )


def check_gpus(info: dict[str, Any]) -> str:
    """How this daemon hands out GPUs: `nvidia` (its runtime) or `cdi`; UserError if it cannot."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return "nvidia"
    if any("nvidia.com/gpu" in str(device.get("ID")) for device in info.get("DiscoveredDevices") or ()):
        return "cdi"
    raise UserError(NO_GPU_RUNTIME)


def create_arguments(sandbox: Sandbox, info: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `create_container` and of `create_host_config`; `info` is the daemon's own description."""
    from docker.types import DeviceRequest, LogConfig, Mount

    security = [str(option) for option in info.get("SecurityOptions") or ()]
    rootless = any(option.startswith("name=rootless") for option in security)
    container = {
        "image": sandbox.image.reference,
        "entrypoint": list(sandbox.argv[:2]),
        "command": list(sandbox.argv[2:]),
        "user": "0:0" if rootless else "{}:{}".format(*sandbox.user),  # rootless: root inside is the caller outside
        "environment": dict(sandbox.environment),
        "working_dir": str(sandbox.workdir),
        "labels": dict(sandbox.labels),
        "stdin_open": True,
        "detach": False,
    }
    host = {
        "mounts": [Mount(str(m.place), str(m.source), type="bind", read_only=not m.writable) for m in sandbox.mounts],
        "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", *(["label=disable"] if "name=selinux" in security else [])],
        "network_mode": "default" if sandbox.network else "none",
        "ipc_mode": "private",
        "shm_size": sandbox.limits.shm,
        "pids_limit": sandbox.limits.pids,
        "mem_limit": sandbox.limits.memory,
        "memswap_limit": sandbox.limits.memory,
        "group_add": [] if rootless else [str(group) for group in sandbox.groups],  # none of them is mapped
        "log_config": LogConfig(type="none"),
        "auto_remove": True,
    }
    if sandbox.gpus:
        host["device_requests"] = [DeviceRequest(**gpu_request(sandbox.gpus, check_gpus(info)))]
    return container, host


def gpu_request(gpus: tuple[str, ...], way: str) -> dict[str, Any]:
    if way == "cdi":
        return {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={gpu}" for gpu in gpus]}
    which = {"count": -1} if gpus == ("all",) else {"device_ids": list(gpus)}
    return {"driver": "nvidia", "capabilities": [["gpu"]], **which}


def check(image: Image, *, gpu: bool) -> None:
    """UserError, before anything is created, if this daemon cannot run `image`."""
    api = open_client()
    if gpu:  # first: an image of tens of GB is of no use without
        check_gpus(api.info())
        check_driver()
    check_image(api, image)


def run(sandbox: Sandbox) -> int:
    """Run the container to its end on this terminal; its exit code, 128 + n after signal n."""
    import docker
    import requests

    api = open_client()
    try:
        remove(api, strays(api, sandbox.labels[f"{LABEL}.checkout"]))
        container, host = create_arguments(sandbox, api.info())
        identity = api.create_container(**container, host_config=api.create_host_config(**host))["Id"]
        with _removed_unless_started(api, identity):
            socket = api.attach_socket(identity, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            since = int(time.time()) - 1
            with _signals_passed_on(identity):
                api.start(identity)
                _copy_output(socket)
        return _exit_code(api, identity, since)
    except docker.errors.APIError as error:
        raise StageFailed(f"Docker could not run the container: {_reason(error)}; run `tldr doctor`.") from None
    except (requests.exceptions.RequestException, ConnectionError):
        raise StageFailed(DAEMON_LOST) from None


@contextlib.contextmanager
def _removed_unless_started(api: Any, identity: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        import docker

        with contextlib.suppress(docker.errors.DockerException, OSError):
            api.remove_container(identity, force=True)
        raise


@contextlib.contextmanager
def _signals_passed_on(identity: str) -> Iterator[None]:
    """SIGINT and SIGTERM go to the container; the second one of a kind kills it."""
    seen: set[int] = set()

    def pass_on(number: int, frame: FrameType | None) -> None:
        which = "SIGKILL" if number in seen else signal.Signals(number).name
        seen.add(number)
        threading.Thread(target=_kill, args=(identity, which), daemon=True).start()

    with handled({signal.SIGINT: pass_on, signal.SIGTERM: pass_on}):
        yield


def _kill(identity: str, which: str) -> None:
    """With a client of its own: the other one is in the middle of a call. A container that has not started yet is
    asked again."""
    import docker

    for _ in range(50):
        try:
            docker.from_env().api.kill(identity, which)
            return
        except docker.errors.NotFound:
            return
        except (docker.errors.DockerException, OSError):
            time.sleep(0.1)


def _copy_output(socket: Any) -> None:
    """The container's two streams to ours until it ends."""
    from docker.utils.socket import STDOUT, frames_iter

    out = LineWriter(sys.stdout.buffer, terminal=sys.stdout.isatty())
    err = LineWriter(sys.stderr.buffer, terminal=sys.stderr.isatty())
    for stream, data in frames_iter(socket, tty=False):
        (out if stream == STDOUT else err).write(data)
    out.flush()
    err.flush()


def _exit_code(api: Any, identity: str, since: int) -> int:
    """From the daemon's record of events, which outlives the container; returns once the container is removed."""
    filters = {"container": identity, "event": ["die", "destroy"], "type": "container"}
    code: int | None = None
    end = time.monotonic() + EXIT_SECONDS
    while time.monotonic() < end:
        for event in api.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True):
            if event["Action"] == "die":
                code = int(event["Actor"]["Attributes"]["exitCode"])
            elif code is not None:
                return code
    if code is None:
        raise StageFailed(DAEMON_LOST)
    return code  # a daemon that is slow to remove it goes on by itself


def _reason(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    return " ".join(str(explanation).split()).rstrip(".")
