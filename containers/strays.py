"""Containers that nobody looks after any more: how ours are marked, found and removed.

A container carries the process that started it as a label. It is a stray once that process is gone, which a killed
launcher leaves only where it died between create and start, or the daemon died with it.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABEL = "io.tldr"


def labels(root: Path, stage: str) -> dict[str, str]:
    """How a stray container is told from one that is still looked after: by the process that started it, and by who can
    see whether that process lives."""
    launcher = f"{os.getpid()}-{process_start(os.getpid())}"
    values = {"checkout": str(root), "stage": stage, "owner": owner(), "launcher": launcher}
    return {f"{LABEL}.{name}": value for name, value in values.items()}


def owner() -> str:
    """This user, on this machine, in this namespace of process numbers. Another one's launcher may well be alive where we
    see no process of its number: in a development container, behind hidepid, or where a daemon serves several machines."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{os.getuid()}@{platform.node()}/{namespace}"


def process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None if it is gone: a number that is used again differs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def is_stray(container_labels: Mapping[str, str]) -> bool:
    """Whether the process that started a container with these labels is known to be gone."""
    if container_labels.get(f"{LABEL}.owner") != owner():
        return False
    pid, _, start = container_labels.get(f"{LABEL}.launcher", "").partition("-")
    return not pid.isdigit() or process_start(int(pid)) != start


def containers(api: Any) -> list[dict[str, Any]]:
    """Every container that tldr started, running or not."""
    found: list[dict[str, Any]] = api.containers(all=True, filters={"label": f"{LABEL}.launcher"})
    return found


def strays(api: Any, checkout: str | None = None) -> list[str]:
    """Ids of this user's containers whose launcher is gone, of one checkout or of all."""
    return [
        str(found["Id"])
        for found in containers(api)
        if is_stray(found["Labels"]) and checkout in (None, found["Labels"].get(f"{LABEL}.checkout"))
    ]


def remove(api: Any, identities: list[str]) -> None:
    """Kill and remove; one that is gone already, or on its way, is what was wanted."""
    import docker

    for identity in identities:
        with contextlib.suppress(docker.errors.APIError):
            api.remove_container(identity, force=True)
