"""The GPUs of this machine and their driver, as `nvidia-smi` tells them; nothing heavy is imported."""

from __future__ import annotations

import shutil
import subprocess

from stages._errors import UserError

CUDA_FLOOR = "13.0"
DRIVER_FLOOR = (580, 65, 6)  # of CUDA 13.0.3, which torch 2.13.0 is built for (CUDA release notes, table 3)
NO_GPU_RUNTIME = (
    "container.device = cuda, but the container engine knows no NVIDIA GPU; install the NVIDIA Container Toolkit and "
    "restart the engine, or set container.device to cpu."
)
QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
QUERY_SECONDS = 20


def read_gpus() -> list[tuple[str, str, str]]:
    """Name, driver version and memory of every GPU; empty without a driver."""
    if shutil.which(QUERY[0]) is None:
        return []
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(answer.stdout) if answer.returncode == 0 else []


def parse_gpus(text: str) -> list[tuple[str, str, str]]:
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def is_old(driver: str) -> bool:
    """Whether a driver version such as 580.65.06 is below the floor; an unreadable one is."""
    parts = driver.split(".")
    if not all(part.isdigit() for part in parts):
        return True
    return tuple(int(part) for part in parts) < DRIVER_FLOOR


def check_driver() -> None:
    """UserError if there is no GPU or its driver is too old for the image."""
    gpus = read_gpus()
    if not gpus:
        raise UserError(
            "container.device = cuda, but nvidia-smi finds no GPU here; set container.device to cpu, or run on a "
            "machine with an NVIDIA GPU."
        )
    name, driver, _ = gpus[0]
    if is_old(driver):
        floor = "580.65.06"
        raise UserError(
            f"The driver {driver} of {name} is older than {floor}, which CUDA {CUDA_FLOOR} needs; update it."
        )
