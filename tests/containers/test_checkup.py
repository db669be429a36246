"""What `tldr doctor` says of containers where there is no engine, no image, no GPU, or an old driver: toys stand for those."""

from __future__ import annotations

import json
import os
import re
import shutil
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from containers import checkup
from containers.checkup import check_containers, gpu_line
from containers.images import make_images, read_images, write_images
from containers.strays import owner, process_start
from stages.__main__ import main
from stages._param_blocks import ContainerParams
from stages._params import load_params
from tests.paths import ROOT

NO_RUNTIME = (
    "container.device = cuda, but the container engine knows no NVIDIA GPU; install the NVIDIA Container Toolkit"
)
OLD = "The driver 580.65.05 of Toy GPU is older than 580.65.06, which CUDA 13.0 needs; update it."
NEW = "Toy GPU (80 GiB), driver 580.65.06, new enough for CUDA 13.0"
NO_GPU = "no NVIDIA GPU; container.device has to be cpu"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current image lock; no command on PATH but the toys in bin/, and no daemon at DOCKER_HOST."""
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "wheels")
    shutil.copytree(ROOT / "containers", root / "containers", ignore=ignore)
    shutil.copy(ROOT / "params.yaml", root)
    write_images(root, make_images(root, {}, {}))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "TLDR_SIF_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(root)
    return root


def put(root: Path, command: str, script: str) -> None:
    path = root.parent / "bin" / command
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def container(engine: str, device: str = "cpu") -> ContainerParams:
    return load_params(ROOT).container.model_copy(update={"engine": engine, "device": device})


def lines(root: Path, engine: str, device: str = "cpu") -> dict[str, tuple[str, str]]:
    """Verdict and sentence by name."""
    found = list(check_containers(root, container(engine, device)))
    assert len({name for name, _, _ in found}) == len(found)
    return {name: (verdict, message) for name, verdict, message in found}


def use_podman(root: Path) -> None:
    """In params.yaml, so that doctor does not import torch, which the stages of the host need."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  engine: \w+", "  engine: podman", text, count=1, flags=re.MULTILINE)
    (root / "params.yaml").write_text(text, encoding="utf-8")


# The engine


def test_the_host_needs_no_engine(checkout: Path) -> None:
    assert lines(checkout, "host").keys() == {"engine", "gpu"}
    verdict, message = lines(checkout, "host")["engine"]
    assert verdict == "PASS"
    assert message.startswith("host: stages run in this Python; No Docker daemon answers (")


def test_a_daemon_that_does_not_answer_fails(checkout: Path) -> None:
    put(checkout, "docker", "exit 1")
    verdict, message = lines(checkout, "docker")["engine"]
    assert verdict == "FAIL"
    assert re.fullmatch(
        r"No Docker daemon answers \(.+\); start it \(`sudo systemctl start docker`\), or set container\.engine to "
        r"another engine\.",
        message,
    )


@pytest.mark.parametrize("engine", ["podman", "apptainer"])
def test_a_command_that_is_not_here_fails(checkout: Path, engine: str) -> None:
    sentence = f"{engine} is not installed; install it, or set container.engine to another."
    assert lines(checkout, engine)["engine"] == ("FAIL", sentence)
    put(checkout, engine, f"echo {engine} version 5.4.2")
    assert lines(checkout, engine)["engine"] == ("PASS", f"{engine} version 5.4.2")


# The images


@pytest.mark.parametrize(
    ("script", "verdict", "said"),
    [
        ("exit 1", "FAIL", "podman does not answer; run `tldr images build cpu` or `tldr images pull cpu`."),
        ('[ "$1" = version ]', "FAIL", "not here; run `tldr images build cpu` or `tldr images pull cpu`."),
        ("echo sha256:1", "FAIL", "built from other inputs; run `tldr images build cpu` or `tldr images pull cpu`."),
        ("echo {inputs}", "PASS", "ready"),
    ],
)
def test_a_missing_image_fails_and_says_what_to_run(checkout: Path, script: str, verdict: str, said: str) -> None:
    """A toy `podman` answers for the image that is asked for."""
    cpu = read_images(checkout)["cpu"]
    put(checkout, "podman", f'[ "$1" = --version ] || {{ {script.format(inputs=cpu.inputs)}; }}')
    assert lines(checkout, "podman")["image cpu"] == (verdict, f"{cpu.reference}: {said}")


def test_the_images_are_those_of_the_device(checkout: Path) -> None:
    put(checkout, "apptainer", "echo apptainer version 1.4")
    names = [name for name in lines(checkout, "apptainer", "cuda") if name.startswith("image ")]
    assert names == ["image cpu", "image cuda"]
    assert [name for name in lines(checkout, "apptainer") if name.startswith("image ")] == ["image cpu"]


def test_too_little_room_for_a_missing_image_is_a_warning(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(checkout, "podman", '[ "$1" = --version ]')
    monkeypatch.setattr(checkup, "IMAGE_BYTES", {"cpu": 10**18})
    verdict, message = lines(checkout, "podman")["disk cpu"]
    assert (verdict, message.partition(" GB ")[2]) == ("WARN", f"free in {checkout}; the image cpu may not fit.")
    monkeypatch.setattr(checkup, "IMAGE_BYTES", {"cpu": 0})
    assert "disk cpu" not in lines(checkout, "podman")


def test_a_broken_lock_is_a_failing_line_where_images_are_used(checkout: Path) -> None:
    (checkout / "containers" / "images.yaml").write_text("images: {}\n")
    verdict, message = lines(checkout, "podman")["images"]
    assert (verdict, "is not a whole image lock; restore it with git" in message) == ("FAIL", True)
    assert "images" not in lines(checkout, "host")


# The GPU


@pytest.mark.parametrize(
    ("script", "device", "verdict", "said"),
    [
        (None, "cpu", "PASS", NO_GPU),
        (None, "cuda", "FAIL", NO_GPU),
        ("exit 9", "cuda", "FAIL", NO_GPU),
        ("echo Toy GPU, 580.65.05, 80 GiB", "cpu", "WARN", OLD),
        ("echo Toy GPU, 580.65.05, 80 GiB", "cuda", "FAIL", OLD),
        ("echo Toy GPU, 580.65.06, 80 GiB", "cpu", "PASS", NEW),
        ("echo Toy GPU, 580.65.06, 80 GiB", "cuda", "PASS", NEW),
    ],
)
def test_gpu_and_driver(checkout: Path, script: str | None, device: str, verdict: str, said: str) -> None:
    if script is not None:
        put(checkout, "nvidia-smi", script)
    assert gpu_line(container("docker", device)) == ("gpu", verdict, said)


# A daemon: a toy that answers what doctor asks


class Answers(BaseHTTPRequestHandler):
    info: ClassVar[dict[str, Any]]
    containers: ClassVar[list[dict[str, Any]]]
    removed: ClassVar[list[str]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rpartition("/")[2]
        versions = {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27.0"}
        self.answer({"version": versions, "_ping": "OK", "info": self.info, "json": self.containers}[path])

    def do_DELETE(self) -> None:
        self.removed.append(self.path.partition("?")[0].rpartition("/")[2])
        self.answer({})

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix socket"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def daemon(checkout: Path) -> Iterator[type[Answers]]:
    class Fresh(Answers):
        info: ClassVar = {"ServerVersion": "27.0", "Runtimes": {"runc": {}}, "DockerRootDir": str(checkout)}
        containers: ClassVar = []
        removed: ClassVar = []

    put(checkout, "docker", "exit 1")
    with socketserver.ThreadingUnixStreamServer(str(checkout.parent / "docker.sock"), Fresh) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Fresh
        server.shutdown()


def test_a_daemon_that_answers_passes(checkout: Path, daemon: type[Answers]) -> None:
    found = lines(checkout, "docker")
    assert found["engine"] == ("PASS", "Docker 27.0")
    assert found["containers"] == ("PASS", "none left behind")
    assert "gpu runtime" not in found
    host = lines(checkout, "host")["engine"]
    assert host == ("PASS", "host: stages run in this Python; Docker 27.0 is there too")


def test_a_daemon_without_nvidia_fails_where_cuda_is_asked_for(checkout: Path, daemon: type[Answers]) -> None:
    put(checkout, "nvidia-smi", "echo Toy GPU, 580.65.06, 80 GiB")
    verdict, message = lines(checkout, "docker", "cuda")["gpu runtime"]
    assert (verdict, message.startswith(NO_RUNTIME)) == ("FAIL", True)
    daemon.info["Runtimes"]["nvidia"] = {}
    assert lines(checkout, "docker", "cuda")["gpu runtime"] == ("PASS", "the daemon hands out NVIDIA GPUs")


def test_a_container_that_was_left_is_a_warning_and_is_cleaned(checkout: Path, daemon: type[Answers]) -> None:
    alive = f"{os.getpid()}-{process_start(os.getpid())}"
    daemon.containers += [
        {"Id": "a" * 64, "Labels": {"io.tldr.owner": owner(), "io.tldr.launcher": f"{os.getpid()}-1"}},
        {"Id": "b" * 64, "Labels": {"io.tldr.owner": owner(), "io.tldr.launcher": alive}},
        {"Id": "c" * 64, "Labels": {"io.tldr.owner": "0@elsewhere/1", "io.tldr.launcher": f"{os.getpid()}-1"}},
    ]
    verdict, message = lines(checkout, "host")["containers"]
    assert (verdict, message) == (
        "WARN",
        f"left behind by a run that was killed: {'a' * 12}; run `tldr doctor --clean`.",
    )
    use_podman(checkout)
    answer = CliRunner().invoke(main, ["doctor", "--clean"])
    assert f"Removed {'a' * 12}.\n" in answer.stderr
    assert daemon.removed == ["a" * 64]


def test_clean_without_a_daemon_says_that_nothing_is_left(checkout: Path) -> None:
    use_podman(checkout)
    assert "No container was left behind.\n" in CliRunner().invoke(main, ["doctor", "--clean"]).stderr


def test_doctor_says_these_lines_and_fails_with_them(checkout: Path) -> None:
    use_podman(checkout)
    answer = CliRunner().invoke(main, ["doctor", "--json"])
    verdicts = {check["name"]: check["verdict"] for check in json.loads(answer.stdout)}
    assert answer.exit_code == 1
    assert (verdicts["engine"], verdicts["image cpu"], verdicts["gpu"]) == ("FAIL", "FAIL", "PASS")
    assert "torch" not in verdicts
