"""What each engine is called with, word for word, and what is said where there is no GPU that it could hand out.

A change of a golden list is a change of what a container may do: look at it with the list of containers/sandbox.py at hand.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from containers.building import build_argv
from containers.command_engines import apptainer_argv, podman_argv, sif_path
from containers.docker_engine import check_gpus, create_arguments
from containers.gpus import check_driver, is_old, parse_gpus, read_gpus
from containers.images import Image
from containers.sandbox import Limits, Mount, Sandbox
from stages._errors import UserError

BASE = f"example.org/base:1@sha256:{'5' * 64}"
INPUTS = f"sha256:{'6' * 64}"
ROOT = Path("/home/toy/tldr")
CPU = Sandbox(
    image=Image("cpu", "tldr-reweight-cpu:666666666666", BASE, INPUTS),
    command=("python3", "-m", "stages", "run", "label-by-length"),
    workdir=ROOT,
    mounts=(
        Mount(ROOT),
        Mount(Path("/mnt/data"), target=ROOT / "data"),
        Mount(ROOT / "artifacts", writable=True),
    ),
    environment={"TLDR_CONTAINER": "podman", "HF_HUB_OFFLINE": "1"},
    user=(1234, 100),
    groups=(27, 44),
    limits=Limits(shm=4 * 2**30, memory=None, pids=4096),
    labels={"io.tldr.stage": "label-by-length", "io.tldr.launcher": "7-99"},
)
CUDA = dataclasses.replace(
    CPU,
    image=Image("cuda", "tldr-reweight-cuda:666666666666", BASE, INPUTS),
    command=("python3", "-m", "stages", "run", "train"),
    labels={"io.tldr.stage": "train"},
    limits=Limits(shm=2**30, memory=8 * 2**30, pids=100),
    gpus=("0", "GPU-5f"),
)
FETCH = dataclasses.replace(CPU, network=True)
ULIMITS = {"nofile": 1024, "nproc": 16384}


# podman and apptainer


def test_podman_for_a_user() -> None:
    assert podman_argv(CPU, rootless=True, ulimits=ULIMITS) == [
        "podman",
        "run",
        "--rm",
        "--interactive",
        "--pull=never",
        "--log-driver=none",
        "--user=1234:100",
        "--userns=keep-id",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--security-opt=label=disable",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777",
        "--network=none",
        "--ipc=private",
        "--shm-size=4294967296",
        "--pids-limit=4096",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=16384:16384",
        "--mount=type=bind,source=/home/toy/tldr,destination=/home/toy/tldr,readonly",
        "--mount=type=bind,source=/mnt/data,destination=/home/toy/tldr/data,readonly",
        "--mount=type=bind,source=/home/toy/tldr/artifacts,destination=/home/toy/tldr/artifacts",
        "--env=TLDR_CONTAINER=podman",
        "--env=HF_HUB_OFFLINE=1",
        "--label=io.tldr.stage=label-by-length",
        "--label=io.tldr.launcher=7-99",
        "--workdir=/home/toy/tldr",
        '--entrypoint=["tini", "--"]',
        "tldr-reweight-cpu:666666666666",
        "python3",
        "-m",
        "containers.inside",
        "python3",
        "-m",
        "stages",
        "run",
        "label-by-length",
    ]


def test_podman_for_root_with_two_gpus_and_a_memory_limit() -> None:
    assert podman_argv(CUDA, rootless=False, ulimits=ULIMITS) == [
        "podman",
        "run",
        "--rm",
        "--interactive",
        "--pull=never",
        "--log-driver=none",
        "--user=1234:100",
        "--group-add=27",
        "--group-add=44",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--security-opt=label=disable",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777",
        "--network=none",
        "--ipc=private",
        "--shm-size=1073741824",
        "--pids-limit=100",
        "--memory=8589934592",
        "--memory-swap=8589934592",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=16384:16384",
        "--mount=type=bind,source=/home/toy/tldr,destination=/home/toy/tldr,readonly",
        "--mount=type=bind,source=/mnt/data,destination=/home/toy/tldr/data,readonly",
        "--mount=type=bind,source=/home/toy/tldr/artifacts,destination=/home/toy/tldr/artifacts",
        "--env=TLDR_CONTAINER=podman",
        "--env=HF_HUB_OFFLINE=1",
        "--label=io.tldr.stage=train",
        "--device=nvidia.com/gpu=0",
        "--device=nvidia.com/gpu=GPU-5f",
        "--workdir=/home/toy/tldr",
        '--entrypoint=["tini", "--"]',
        "tldr-reweight-cuda:666666666666",
        "python3",
        "-m",
        "containers.inside",
        "python3",
        "-m",
        "stages",
        "run",
        "train",
    ]


def test_only_fetch_has_a_network() -> None:
    stage, fetch = (podman_argv(sandbox, rootless=True, ulimits={}) for sandbox in (CPU, FETCH))
    assert [word for word in stage if word not in fetch] == ["--network=none"]
    sif, scratch = Path("/toy.sif"), Path("/scratch")
    stage, fetch = (apptainer_argv(sandbox, sif, scratch) for sandbox in (CPU, FETCH))
    assert [word for word in stage if word not in fetch] == ["--net", "--network=none"]
    stage_host, fetch_host = (create_arguments(sandbox, {})[1] for sandbox in (CPU, FETCH))
    assert stage_host | {"network_mode": "default"} == fetch_host


def test_limits_of_podman_are_those_of_the_caller_or_lower() -> None:
    """Asked in a process of its own, whose hard limits are lowered."""
    code = (
        "import resource as r\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 200)); r.setrlimit(r.RLIMIT_NPROC, (900, 1000))\n"
        "from containers.command_engines import caller_ulimits\n"
        "print(caller_ulimits(100), caller_ulimits(300))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "{'nofile': 200, 'nproc': 400} {'nofile': 200, 'nproc': 1000}\n"


def test_apptainer_with_two_gpus() -> None:
    assert apptainer_argv(CUDA, Path("/home/toy/tldr/.tldr/images/tldr-reweight-cuda-666666666666.sif"), Path("/scratch")) == [
        "apptainer",
        "exec",
        "--containall",
        "--cleanenv",
        "--no-privs",
        "--no-home",
        "--net",
        "--network=none",
        "--nv",
        "--workdir=/scratch",
        "--bind=/home/toy/tldr:/home/toy/tldr:ro",
        "--bind=/mnt/data:/home/toy/tldr/data:ro",
        "--bind=/home/toy/tldr/artifacts:/home/toy/tldr/artifacts:rw",
        "--env=TLDR_CONTAINER=podman",
        "--env=HF_HUB_OFFLINE=1",
        "--env=CUDA_VISIBLE_DEVICES=0,GPU-5f",
        "--pwd=/home/toy/tldr",
        "/home/toy/tldr/.tldr/images/tldr-reweight-cuda-666666666666.sif",
        "tini",
        "--",
        "python3",
        "-m",
        "containers.inside",
        "python3",
        "-m",
        "stages",
        "run",
        "train",
    ]  # fmt: skip


@pytest.mark.parametrize(("gpus", "words"), [((), []), (("all",), ["--nv"])])
def test_apptainer_hides_no_gpu_of_all(gpus: tuple[str, ...], words: list[str]) -> None:
    argv = apptainer_argv(dataclasses.replace(CUDA, gpus=gpus), Path("/toy.sif"), Path("/scratch"))
    assert [word for word in argv if word == "--nv" or "CUDA" in word] == words


def test_image_file_of_apptainer_is_named_after_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLDR_SIF_DIR", raising=False)
    assert sif_path(ROOT, CPU.image) == ROOT / ".tldr" / "images" / "tldr-reweight-cpu-666666666666.sif"
    monkeypatch.setenv("TLDR_SIF_DIR", "/shared/images")
    assert sif_path(ROOT, CPU.image) == Path("/shared/images/tldr-reweight-cpu-666666666666.sif")


# docker


def test_build_of_an_image() -> None:
    online = [
        "docker",
        "build",
        "--file=/home/toy/tldr/containers/cuda/Dockerfile",
        "--tag=tldr-reweight-cuda:666666666666",
        f"--build-arg=BASE_IMAGE={BASE}",
        f"--build-arg=BASE_DIGEST=sha256:{'5' * 64}",
        f"--build-arg=INPUTS={INPUTS}",
        "/home/toy/tldr/containers",
    ]
    assert build_argv(ROOT, CUDA.image, "docker", offline=False) == online
    offline = ["--network=none", "--build-arg=PIP_OPTIONS=--no-index"]
    assert build_argv(ROOT, CUDA.image, "docker", offline=True) == [*online[:-1], *offline, online[-1]]
    assert build_argv(ROOT, CUDA.image, "podman", offline=False) == ["podman", *online[1:]]


CONTAINER = {
    "image": "tldr-reweight-cuda:666666666666",
    "entrypoint": ["tini", "--"],
    "command": ["python3", "-m", "containers.inside", "python3", "-m", "stages", "run", "train"],
    "user": "1234:100",
    "environment": {"TLDR_CONTAINER": "podman", "HF_HUB_OFFLINE": "1"},
    "working_dir": "/home/toy/tldr",
    "labels": {"io.tldr.stage": "train"},
    "stdin_open": True,
    "detach": False,
}
HOST: dict[str, Any] = {
    "mounts": [
        {"Target": "/home/toy/tldr", "Source": "/home/toy/tldr", "Type": "bind", "ReadOnly": True},
        {"Target": "/home/toy/tldr/data", "Source": "/mnt/data", "Type": "bind", "ReadOnly": True},
        {"Target": "/home/toy/tldr/artifacts", "Source": "/home/toy/tldr/artifacts", "Type": "bind", "ReadOnly": False},
    ],
    "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
    "ipc_mode": "private",
    "shm_size": 1073741824,
    "pids_limit": 100,
    "mem_limit": 8589934592,
    "memswap_limit": 8589934592,
    "group_add": ["27", "44"],
    "log_config": {"Type": "none", "Config": {}},
    "auto_remove": True,
}
NVIDIA = {"Runtimes": {"runc": {}, "nvidia": {}}, "SecurityOptions": ["name=seccomp,profile=builtin"]}
CDI = {"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}


def request(driver: str, count: int, ids: list[str], capabilities: list[list[str]]) -> dict[str, Any]:
    return {"Driver": driver, "Count": count, "DeviceIDs": ids, "Capabilities": capabilities, "Options": {}}


def test_docker_with_the_runtime_of_nvidia() -> None:
    wanted = HOST | {"device_requests": [request("nvidia", 0, ["0", "GPU-5f"], [["gpu"]])]}
    assert create_arguments(CUDA, NVIDIA) == (CONTAINER, wanted)
    wanted = HOST | {"device_requests": [request("nvidia", -1, [], [["gpu"]])]}
    assert create_arguments(dataclasses.replace(CUDA, gpus=("all",)), NVIDIA) == (CONTAINER, wanted)


def test_docker_with_the_container_device_interface() -> None:
    wanted = HOST | {"device_requests": [request("cdi", 0, ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-5f"], [])]}
    assert create_arguments(CUDA, CDI) == (CONTAINER, wanted)
    wanted = HOST | {"device_requests": [request("cdi", 0, ["nvidia.com/gpu=all"], [])]}
    assert create_arguments(dataclasses.replace(CUDA, gpus=("all",)), CDI) == (CONTAINER, wanted)


def test_docker_without_a_gpu_or_a_memory_limit() -> None:
    container, host = create_arguments(dataclasses.replace(CUDA, gpus=(), limits=CPU.limits), NVIDIA)
    limits = {"shm_size": 4294967296, "pids_limit": 4096, "mem_limit": None, "memswap_limit": None}
    assert (container, host) == (CONTAINER, HOST | limits)


def test_docker_of_a_user_maps_its_root_to_the_caller() -> None:
    info = NVIDIA | {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}
    container, host = create_arguments(dataclasses.replace(CUDA, gpus=()), info)
    assert (container, host) == (CONTAINER | {"user": "0:0"}, HOST | {"group_add": []})


def test_docker_under_selinux_reads_the_checkout() -> None:
    info = NVIDIA | {"SecurityOptions": ["name=seccomp,profile=builtin", "name=selinux"]}
    container, host = create_arguments(dataclasses.replace(CUDA, gpus=()), info)
    assert (container, host) == (CONTAINER, HOST | {"security_opt": ["no-new-privileges", "label=disable"]})


def test_the_docker_library_takes_these_arguments() -> None:
    from docker.types import HostConfig

    sent = HostConfig(version="1.47", **create_arguments(CUDA, NVIDIA)[1])
    assert (sent["ReadonlyRootfs"], sent["CapDrop"], sent["NetworkMode"]) == (True, ["ALL"], "none")
    assert (sent["Memory"], sent["MemorySwap"]) == (8589934592, 8589934592)


# GPUs


def test_a_daemon_without_nvidia_says_what_to_install() -> None:
    sentence = (
        "container.device = cuda, but the container engine knows no NVIDIA GPU; install the NVIDIA Container Toolkit and "
        "restart the engine, or set container.device to cpu."
    )
    other = [{"Source": "cdi", "ID": "amd.com/gpu=0"}]
    for info in ({}, {"Runtimes": {"runc": {}}}, {"Runtimes": None, "DiscoveredDevices": other}):
        with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
            check_gpus(info)
        with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
            create_arguments(CUDA, info)


def test_gpus_are_read_from_the_answer_of_nvidia_smi() -> None:
    text = "NVIDIA H100 80GB HBM3, 580.95.05, 81559 MiB\nNVIDIA T4, 580.95.05, 15360 MiB\n"
    assert parse_gpus(text) == [
        ("NVIDIA H100 80GB HBM3", "580.95.05", "81559 MiB"),
        ("NVIDIA T4", "580.95.05", "15360 MiB"),
    ]
    assert parse_gpus("") == parse_gpus("No devices were found\n") == []


@pytest.mark.parametrize(
    ("driver", "old"),
    [
        ("580.65.06", False),
        ("580.65.05", True),
        ("580.65.6", False),
        ("580.9", True),
        ("580.82.07", False),
        ("580.126.09", False),
        ("590.1", False),
        ("575.200.99", True),
        ("580", True),
        ("99.99.99", True),
        ("[N/A]", True),
        ("580.65.06-beta", True),
        ("", True),
    ],
)
def test_drivers_below_the_floor_of_cuda_are_old(driver: str, old: bool) -> None:
    assert is_old(driver) == old


NO_GPU = (
    "container.device = cuda, but nvidia-smi finds no GPU here; set container.device to cpu, or run on a machine with an "
    "NVIDIA GPU."
)
OLD = "The driver 580.65.05 of Toy GPU is older than 580.65.06, which CUDA 13.0 needs; update it."


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo Toy GPU, 580.65.05, 80 GiB", OLD),
        ("exit 9", NO_GPU),
        ("echo Toy GPU, 580.95.05, 80 GiB; exit 9", NO_GPU),
        ("echo No devices were found", NO_GPU),
        (None, NO_GPU),
    ],
)
def test_no_usable_gpu_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, sentence: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        check_driver()


def test_a_new_driver_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy answers only to the question that the real one understands."""
    script = '[ "$*" = "--query-gpu=name,driver_version,memory.total --format=csv,noheader" ] && echo Toy GPU, 580.65.06, 1 MiB'
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check_driver()
    assert read_gpus() == [("Toy GPU", "580.65.06", "1 MiB")]
