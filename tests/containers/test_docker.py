"""The engine `docker` for real: exit codes, signals, memory, what a process inside can not do, the token, a registry."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages._params import check_params, read_yaml
from tests.containers.conftest import READY, behave, run_tldr, wait_until

pytestmark = pytest.mark.containers

SLEEP = f"""
import time
print("first part", end=" ", flush=True)
(root / "{READY}").write_text("")
time.sleep(100)
"""


def start(root: Path, program: str) -> subprocess.Popen[str]:
    """The toy stage in its container, at the point where `program` has written READY."""
    behave(root, program)
    launcher = subprocess.Popen(
        [sys.executable, "-m", "stages", "run", "sample"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (root / READY).exists() or launcher.poll() is not None, "the stage")
    assert launcher.poll() is None, launcher.communicate()
    return launcher


def of_checkout(api: Any, root: Path) -> list[Any]:
    found: list[Any] = api.containers(all=True, filters={"label": f"io.tldr.checkout={root}"})
    return found


def last_exit(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / ".tldr" / "last_exit.json").read_text())
    return record


def test_the_image_passes_its_own_checks(built: Path) -> None:
    done = run_tldr(built, "images", "verify", "cpu")
    assert "FAIL" not in done.stdout
    assert {"record", "pins", "torch", "tini", "/tmp"} <= {line.split()[1] for line in done.stdout.splitlines()}
    (row,) = [row for row in json.loads(run_tldr(built, "images", "list", "--json").stdout) if row["name"] == "cpu"]
    assert row["state"] == "ready"


def test_a_stage_runs_and_says_where(toy: Path) -> None:
    behave(toy, "import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    done = run_tldr(toy, "run", "sample")
    reference = read_yaml(toy / "containers" / "images.yaml")["images"]["cpu"]["reference"]
    assert done.stdout == "to stdout\n"
    assert done.stderr == f"sample: container engine docker, device cpu, image {reference}\nto stderr\n"
    assert (toy / "artifacts" / "sample.txt").read_text() == "done"
    assert (toy / "artifacts" / "sample.txt").stat().st_uid == os.getuid()
    assert last_exit(toy)["exit_code"] == 0


@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("from stages._errors import UserError; raise UserError('A bad file; give a good one.')", 2, "A bad file"),
        ("from stages._errors import StageFailed; raise StageFailed('It was wrong; look.')", 1, "It was wrong"),
        ("raise KeyError('toy')", 70, "This is a bug in tldr (KeyError: 'toy')"),
        ("open('/dev/full', 'w').write('x' * 100000)", 1, "The disk is full"),
        ("import sys; sys.exit(3)", 3, "3"),
        ("import os; os.kill(os.getpid(), 9)", 137, "A process in the container was killed (exit code 137)"),
    ],
)
def test_the_exit_code_and_the_sentence_are_the_stages(toy: Path, program: str, code: int, message: str) -> None:
    behave(toy, program)
    done = run_tldr(toy, "run", "sample", code=code)
    assert last_exit(toy)["exit_code"] == code
    assert last_exit(toy)["message"].startswith(message)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert len(sentences) == (0 if code == 3 else 1)
    assert not (toy / "artifacts" / "sample.txt").exists()


def test_too_little_memory_is_one_sentence(toy: Path) -> None:
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text.replace("memory_gb: ", "memory_gb: 0.25", 1))
    behave(toy, "x = bytearray(1 << 30)")
    done = run_tldr(toy, "run", "sample", code=137)
    assert done.stderr.count("Error:") == 1
    assert "raise container.memory_gb" in done.stderr


def test_a_worker_that_was_killed_for_memory_is_told_from_another_failure(toy: Path) -> None:
    """The stage itself survives and ends with 1: its own sentence and the reason."""
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text.replace("memory_gb: ", "memory_gb: 0.25", 1))
    behave(
        toy,
        "import subprocess, sys\nfrom stages._errors import StageFailed\n"
        "subprocess.run([sys.executable, '-c', 'bytearray(1 << 30)'])\nraise StageFailed('A worker is gone.')",
    )
    assert "raise container.memory_gb" in run_tldr(toy, "run", "sample", code=137).stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_end_the_stage_cleanly(toy: Path, docker_api: Any, number: signal.Signals, code: int) -> None:
    launcher = start(toy, SLEEP)
    assert len(of_checkout(docker_api, toy)) == 1
    launcher.send_signal(number)
    output, errors = launcher.communicate(timeout=30)
    assert launcher.returncode == code
    assert output == "first part "
    assert "run the same command again to go on" in errors and "Traceback" not in errors
    assert last_exit(toy)["exit_code"] == code


def test_a_killed_launcher_leaves_no_container(toy: Path, docker_api: Any) -> None:
    """Even if the stage does not listen to SIGTERM: the watchdog inside kills it after a time of grace."""
    launcher = start(toy, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not of_checkout(docker_api, toy), "the end of the container", seconds=30)


def test_a_second_signal_of_a_kind_kills(toy: Path) -> None:
    launcher = start(toy, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP)
    launcher.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        launcher.wait(timeout=1.5)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=30) == 137
    launcher.communicate()


def test_doctor_finds_and_removes_what_was_left(toy: Path, docker_api: Any) -> None:
    """A container whose launcher died between create and start."""
    image = read_yaml(toy / "containers" / "images.yaml")["images"]["cpu"]["reference"]
    from containers.strays import labels

    mine = labels(toy, "sample") | {"io.tldr.launcher": "1-0"}
    left = docker_api.create_container(image, labels=mine)["Id"]
    theirs = docker_api.create_container(image, labels=mine | {"io.tldr.owner": "4321@elsewhere/1"})["Id"]
    checks = {check["name"]: check for check in json.loads(_doctor(toy, "--json").stdout)}
    assert checks["containers"]["verdict"] == "WARN" and left[:12] in checks["containers"]["message"]
    assert checks["engine"]["message"].startswith("Docker ") and checks["image cpu"]["verdict"] == "PASS"
    assert left[:12] in _doctor(toy, "--clean").stderr
    assert [found["Id"] for found in of_checkout(docker_api, toy)] == [theirs]
    docker_api.remove_container(theirs)


def _doctor(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A toy checkout lacks model and data, so the exit code is 1."""
    return run_tldr(root, "doctor", *options, code=1)


ATTACK = """
import ctypes, json, os, socket, stat, subprocess
from pathlib import Path

def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__ + " " + str(error.errno)
    return "done"

def append(path):
    with open(path, "a") as stream:
        stream.write("x")

def connect():
    socket.create_connection(("127.0.0.1", PORT), timeout=5)

here = root / "artifacts"
mine = here / "mine"
mine.write_text("")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
report = {
    "write an output": attempt(lambda: append(here / "sample.txt")),
    "write an input": attempt(lambda: append(here / "input.txt")),
    "remove an input": attempt(lambda: (here / "input.txt").unlink()),
    "write the parameters": attempt(lambda: append(root / "params.yaml")),
    "write the code": attempt(lambda: append(root / "stages" / "sample.py")),
    "write beside the checkout": attempt(lambda: append(root.parent / "beside.txt")),
    "write the image": attempt(lambda: append("/etc/passwd")),
    "write the packages": attempt(lambda: append("/opt/tldr/intruder.py")),
    "run from /tmp": attempt(lambda: subprocess.run(["/tmp/program"])) if not (
        Path("/tmp/program").write_text("#!/bin/sh\\n"), Path("/tmp/program").chmod(0o755))[1] else "",
    "read a password": (root / ".dvc" / "config.local").read_text(),
    "read another's file": attempt(lambda: (root / "others.txt").read_text()),
    "give a file away": attempt(lambda: os.chown(mine, 12345, 12345)),
    "make a device": attempt(lambda: os.mknod("/tmp/device", stat.S_IFBLK | 0o600, os.makedev(254, 0))),
    "open a raw socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    "mount": ctypes.CDLL(None, use_errno=True).mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "reach the host": attempt(connect),
    "look up a name": attempt(lambda: socket.getaddrinfo("example.org", 443)),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "docker socket": Path("/var/run/docker.sock").exists(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16) | int(status["CapPrm"], 16),
    "no new privileges": int(status["NoNewPrivs"]),
    "user": [os.getuid(), os.getgid()],
    "secret": os.environ.get("HF_TOKEN"),
    "offline": os.environ["HF_HUB_OFFLINE"],
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
}
mine.unlink()
(here / "sample.txt").unlink()
print(json.dumps(report))
"""


def test_a_process_inside_can_do_what_a_stage_needs_and_no_more(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (toy / ".dvc" / "config.local").write_text("[core]\n    # password of a remote\n")
    others = toy / "others.txt"
    others.write_text("not yours")
    if os.getuid() == 0:
        os.chown(others, 54321, 54321)
    others.chmod(0o600 if os.getuid() == 0 else 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        behave(toy, ATTACK.replace("PORT", str(server.getsockname()[1])))
        report = json.loads(run_tldr(toy, "run", "sample").stdout)
    report.pop("write beside the checkout")  # done, if the checkout lies in /tmp: into the container's own
    assert not (toy.parent / "beside.txt").exists()
    read_only, refused = "OSError 30", "PermissionError"
    assert report == {
        "write an output": "done",
        "write an input": read_only,
        "remove an input": "OSError 16",
        "write the parameters": read_only,
        "write the code": read_only,
        "write the image": read_only if os.getuid() == 0 else f"{refused} 13",
        "write the packages": read_only,
        "run from /tmp": "done",
        "read a password": "",
        "read another's file": f"{refused} 13",
        "give a file away": f"{refused} 1",
        "make a device": f"{refused} 1",
        "open a raw socket": f"{refused} 1",
        "mount": -1,
        "reach the host": "ConnectionRefusedError 111",
        "look up a name": "gaierror -3",
        "interfaces": ["lo"],
        "docker socket": False,
        "capabilities": 0,
        "no new privileges": 1,
        "user": [os.getuid(), os.getgid()],
        "secret": None,
        "offline": "1",
        "shm": 4 * 1024**3,
    }
    assert (toy / "artifacts" / "input.txt").read_text() == "read me only"


def test_an_input_that_is_a_link_out_of_the_checkout_is_there_and_read_only(toy: Path, tmp_path: Path) -> None:
    """As with a DVC cache of linked files, or a model folder on another disk."""
    outside = tmp_path / "elsewhere" / "input.txt"
    outside.parent.mkdir()
    outside.write_text("from outside")
    (toy / "artifacts" / "input.txt").unlink()
    (toy / "artifacts" / "input.txt").symlink_to(outside)
    behave(
        toy,
        "path = root / 'artifacts' / 'input.txt'\nprint(path.read_text())\n"
        "try: path.write_text('x')\nexcept OSError as error: print(error.errno)",
    )
    assert run_tldr(toy, "run", "sample").stdout == "from outside\n30\n"
    assert outside.read_text() == "from outside"


def test_the_other_images_and_a_gpu_are_asked_for_before_anything_is_created(toy: Path, docker_api: Any) -> None:
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text.replace("device: cpu ", "device: cuda ", 1))
    done = run_tldr(toy, "run", "sample", code=2)
    assert "knows no NVIDIA GPU" in done.stderr or "nvidia-smi finds no GPU" in done.stderr
    (toy / "params.yaml").write_text(text)
    lock = toy / "containers" / "images.yaml"
    old = read_yaml(lock)["images"]["cpu"]["inputs"]
    with (toy / "containers" / "cpu" / "verify.py").open("a") as stream:
        stream.write("# changed\n")
    assert "run `tldr images lock --digests-only`" in run_tldr(toy, "run", "sample", code=2).stderr
    base = read_yaml(lock)["images"]["cpu"]["base"]
    run_tldr(toy, "images", "lock", "--digests-only", "--base", f"cpu={base}")
    assert "run `tldr images build cpu`" in run_tldr(toy, "run", "sample", code=2).stderr
    reference = read_yaml(lock)["images"]["cpu"]["reference"]
    docker_api.tag(f"tldr-reweight-cpu:{old.removeprefix('sha256:')[:12]}", *reference.split(":"))
    try:
        assert "was not built from the inputs" in run_tldr(toy, "run", "sample", code=2).stderr
    finally:
        docker_api.remove_image(reference)


def test_a_token_is_a_read_only_file_and_nowhere_else(toy: Path, docker_api: Any) -> None:
    from containers import docker_engine
    from containers.images import read_images
    from containers.sandbox import fetch_sandbox

    token = toy.parent / "token"
    token.write_text("hf_secret")
    params = check_params(read_yaml(toy / "params.yaml"), "params.yaml")
    sandbox = fetch_sandbox(toy, params, ["--dry-run"], token, read_images(toy)["cpu"])
    container, host = docker_engine.create_arguments(replace(sandbox, network=False), docker_api.info())
    host["auto_remove"] = False
    program = "import os; p = os.environ['HF_TOKEN_PATH']; print(open(p).read()); open(p, 'a')"
    container["command"] = [*container["command"][:3], "python3", "-c", program]
    identity = docker_api.create_container(**container, host_config=docker_api.create_host_config(**host))["Id"]
    try:
        attached = docker_api.attach_socket(identity, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        docker_api.start(identity)
        output = b"".join(iter(lambda: attached.read(4096), b"")).decode(errors="replace")
        assert "hf_secret" in output and "Read-only file system" in output
        assert "hf_secret" not in json.dumps(docker_api.inspect_container(identity))
    finally:
        docker_api.remove_container(identity, force=True)


def test_fetch_runs_in_a_container_with_a_network(toy: Path) -> None:
    """Nothing answers at this port of the container's own loopback, so the sentence is the one of an unreachable hub."""
    token = toy.parent / "token"
    token.write_text("hf_secret")
    token.chmod(0o600)
    document = read_yaml(toy / "params.yaml")
    document["fetch"]["model"] = {"repo": "toy/model", "revision": "0" * 40}
    (toy / "params.yaml").write_text(json.dumps(document))
    done = run_tldr(toy, "fetch", "--token-file", str(token), code=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stderr.count("\n") == 1 and "run the same command again to go on" in done.stderr
    assert not (toy / "models").exists()
    assert all("hf_secret" not in path.read_text(errors="replace") for path in toy.rglob("*") if path.is_file())
