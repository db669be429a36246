"""What a container sees and may do: its mounts, its environment, its limits, and how a stray one is told."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from containers.images import Image
from containers.sandbox import (
    OFFLINE,
    Limits,
    Mount,
    Sandbox,
    environment,
    fetch_sandbox,
    limits,
    output_mounts,
    stage_sandbox,
    verify_sandbox,
    visible_gpus,
)
from containers.stage_files import StageFiles, stage_files
from containers.strays import LABEL, is_stray, labels, owner, process_start
from stages._errors import UserError
from stages._params import load_params
from stages.cli._project import STAGES
from tests.paths import ROOT

SOCKETS = (Path("/var/run/docker.sock"), Path("/run/docker.sock"), Path("/run/podman/podman.sock"))
SECRET = "hf_toy0secret"
CPU = Image("cpu", "toy-cpu:1", "base", "sha256:1")
CUDA = Image("cuda", "toy-cuda:2", "base", "sha256:2")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The real dvc.yaml and params.yaml with engine docker and device cuda, under DVC. The model is a link out of it."""
    root = tmp_path / "checkout"
    (root / "models").mkdir(parents=True)
    (tmp_path / "shared-model").mkdir()
    (root / "models" / "tiny").symlink_to(tmp_path / "shared-model")
    shutil.copytree(ROOT / "data" / "tiny", root / "data" / "tiny")
    shutil.copy(ROOT / "dvc.yaml", root)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  engine: \w+", "  engine: docker", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^  device: \w+", "  device: cuda", text, count=1, flags=re.MULTILINE)
    (root / "params.yaml").write_text(text, encoding="utf-8")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for name in ("CUDA_VISIBLE_DEVICES", "TLDR_RUN_ID", "TLDR_DEBUG", "NO_COLOR", "TERM", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return root


def start(root: Path, stage: str) -> Sandbox:
    files = stage_files(root, stage)
    return stage_sandbox(root, load_params(root), stage, files, {"cpu": CPU, "cuda": CUDA}[files.image])


def access(root: Path, mounts: tuple[Mount, ...] | list[Mount]) -> list[tuple[str, str]]:
    return [(str(mount.place.relative_to(root)), "rw" if mount.writable else "ro") for mount in mounts]


def said(sandbox: Sandbox) -> str:
    """Everything of a sandbox that an engine, its logs or its inspection may show."""
    return repr((sandbox.argv, dict(sandbox.environment), dict(sandbox.labels), sandbox.workdir, sandbox.mounts))


# The mounts of the outputs


def test_outputs_are_writable_and_their_neighbours_are_not(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for name in ("a/x.txt", "a/other.txt", "a/deep/y.txt", "a/deep/z.txt", "a/old/w.txt", "a/model/weights", "b/b.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "a" / "link").symlink_to("other.txt")
    outputs = (root / "a/x.txt", root / "a/deep/y.txt", root / "a/model", root / "new/deeper/v.txt")
    assert access(root, list(output_mounts(root, outputs))) == [
        ("a", "rw"),
        ("a/deep/z.txt", "ro"),
        ("a/old", "ro"),
        ("a/other.txt", "ro"),
        ("new/deeper", "rw"),
    ]
    assert (root / "new" / "deeper").is_dir()


def test_partial_file_of_a_killed_run_can_be_written_again(tmp_path: Path) -> None:
    """Its name holds the number of the process, which is the same in every container."""
    (tmp_path / "a" / ".model.7.tmp").mkdir(parents=True)
    (tmp_path / "a" / ".x.txt.7.tmp").touch()
    mounts = list(output_mounts(tmp_path, (tmp_path / "a/x.txt", tmp_path / "a/model")))
    assert access(tmp_path, mounts) == [("a", "rw")]


def test_two_outputs_at_different_depths_keep_what_lies_between(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/input").touch()
    assert access(tmp_path, list(output_mounts(tmp_path, (tmp_path / "a/x", tmp_path / "a/b/c/y")))) == [
        ("a", "rw"),
        ("a/b/input", "ro"),
    ]


@pytest.mark.parametrize("output", ["metrics.json", "../elsewhere/metrics.json"])
def test_output_that_would_open_more_than_a_folder_of_the_checkout_is_refused(tmp_path: Path, output: str) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    with pytest.raises(UserError, match="which is no folder of the checkout; move it to one"):
        list(output_mounts(root, ((root / output).resolve(),)))
    assert [path.name for path in tmp_path.iterdir()] == ["checkout"]


# The container of a stage


def test_a_stage_gets_the_files_that_dvc_yaml_names_and_no_others(checkout: Path) -> None:
    (checkout / "artifacts").mkdir()
    (checkout / "artifacts" / "labels").mkdir()
    sandbox = start(checkout, "sample")
    model = checkout / "models" / "tiny"
    assert sandbox.mounts == (
        Mount(checkout),
        Mount(checkout.parent / "shared-model", target=model),
        Mount(checkout / "artifacts", writable=True),
        Mount(checkout / "artifacts" / "labels"),
        Mount(checkout / "results", writable=True),
        Mount(checkout / ".tldr" / "work" / "sample", writable=True),
        Mount(checkout / ".tldr" / "inside" / "sample", writable=True),
    )
    assert all(mount.source.exists() for mount in sandbox.mounts)


def test_a_stage_runs_as_the_caller_in_the_image_that_dvc_yaml_names(checkout: Path) -> None:
    sandbox = start(checkout, "train")
    assert sandbox.image == CUDA
    assert " ".join(sandbox.argv) == "tini -- python3 -m containers.inside python3 -m stages run train"
    assert sandbox.workdir == checkout
    assert sandbox.user == (os.getuid(), os.getgid())
    assert {*sandbox.groups, os.getgid()} == {*os.getgroups(), os.getgid()}
    assert os.getgid() not in sandbox.groups
    assert sandbox.limits == Limits(shm=4 * 2**30, memory=None, pids=4096)
    assert sandbox.gpus == ("all",)


def test_a_stage_has_no_network_and_the_hub_is_told_so(checkout: Path) -> None:
    sandbox = start(checkout, "evaluate@base")
    assert not sandbox.network
    assert sandbox.environment == {
        "TLDR_CONTAINER": "docker",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    assert (checkout / ".tldr" / "work" / "evaluate-base").is_dir()


def test_no_secret_of_the_caller_goes_in(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, SECRET)
    (checkout.parent / "huggingface" / "hub").mkdir(parents=True)
    (checkout.parent / "huggingface" / "token").write_text(SECRET)
    monkeypatch.setenv("TLDR_RUN_ID", "toy")
    for sandbox in (start(checkout, "sample"), verify_sandbox(checkout, load_params(checkout), CPU, gpu=False)):
        assert set(sandbox.environment) == {"TLDR_CONTAINER", "TLDR_RUN_ID", *OFFLINE}
        assert SECRET not in said(sandbox)
    mounts = start(checkout, "sample").mounts
    assert Mount(checkout.parent / "huggingface" / "hub") in mounts
    assert not any((checkout.parent / "huggingface" / "token").is_relative_to(mount.source) for mount in mounts)


def test_no_container_sees_a_socket_of_an_engine(checkout: Path) -> None:
    params = load_params(checkout)
    sandboxes = [
        *(start(checkout, stage) for stage in STAGES),
        fetch_sandbox(checkout, params, [], None, CPU),
        verify_sandbox(checkout, params, CUDA, gpu=True),
    ]
    for sandbox in sandboxes:
        for mount in sandbox.mounts:
            assert not any(socket.is_relative_to(mount.source) for socket in SOCKETS)
            assert not mount.source.is_socket()
            assert not any(socket.is_relative_to(mount.place) for socket in SOCKETS)


def test_label_by_length_gets_no_gpu_and_no_cuda_image(checkout: Path) -> None:
    sandbox = start(checkout, "label-by-length")
    assert (sandbox.image, sandbox.gpus) == (CPU, ())


def test_a_short_model_outside_the_checkout_is_there_read_only(checkout: Path) -> None:
    (checkout.parent / "short").mkdir()
    text = (checkout / "params.yaml").read_text()
    assert "source: self" in text
    text = text.replace("source: self", "source: model", 1).replace("    path:    ", "    path: ../short    ", 1)
    (checkout / "params.yaml").write_text(text)
    mounts = start(checkout, "ratio-schedule").mounts
    assert Mount(checkout.parent / "short", target=checkout / ".." / "short") in mounts


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('containers/images.yaml: ["run_in.${container.engine}.${container.device}"]', "seed", "names no image for"),
        ("stages:", "stages: [", "DVC cannot read stage sample of dvc.yaml: "),
    ],
)
def test_dvc_yaml_that_names_no_image_is_said(checkout: Path, old: str, new: str, part: str) -> None:
    text = (checkout / "dvc.yaml").read_text()
    assert old in text
    (checkout / "dvc.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=part):
        stage_files(checkout, "sample")


def test_limits_are_bytes(checkout: Path) -> None:
    container = load_params(checkout).container.model_copy(update={"shm_gb": 0.5, "memory_gb": 1.5, "pids_limit": 7})
    assert limits(container) == Limits(shm=536_870_912, memory=1_610_612_736, pids=7)


# The container of `tldr fetch`


def test_fetch_writes_the_checkout_but_not_its_code_or_history(checkout: Path) -> None:
    for name in (".git", ".tldr", "stages", "containers", "models"):
        (checkout / name).mkdir(exist_ok=True)
    sandbox = fetch_sandbox(checkout, load_params(checkout), ["--model"], None, CPU)
    there = sorted(path.name for path in checkout.iterdir())
    assert {"dvc.yaml", "params.yaml", ".dvc", "models"} < set(there)
    covered = [(name, "ro") for name in there if name not in (".tldr", "models")]  # model.path is models/tiny
    assert access(checkout, sandbox.mounts) == [(".", "rw"), *covered]
    assert sandbox.command == ("python3", "-m", "stages", "fetch", "--model")
    assert sandbox.network
    assert sandbox.environment == {"TLDR_CONTAINER": "docker"}
    assert sandbox.user == (os.getuid(), os.getgid())


def test_a_token_is_a_read_only_file_and_nothing_else(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout.parent / "token").write_text(SECRET)
    (checkout.parent / "link").symlink_to("token")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    sandbox = fetch_sandbox(checkout, load_params(checkout), [], checkout.parent / "link", CPU)
    assert sandbox.mounts[-1] == Mount(checkout.parent / "token", target=Path("/run/secrets/hf_token"))
    assert sandbox.environment == {"TLDR_CONTAINER": "docker", "HF_TOKEN_PATH": "/run/secrets/hf_token"}
    assert SECRET not in said(sandbox)


def test_verify_sees_nothing_but_the_watchdog(checkout: Path) -> None:
    sandbox = verify_sandbox(checkout, load_params(checkout), CUDA, gpu=True)
    scratch = checkout / ".tldr" / "inside" / "verify"
    assert sandbox.mounts == (Mount(checkout / "containers"), Mount(scratch, writable=True))
    assert sandbox.command == ("python3", "/opt/tldr/verify.py", "--gpu")
    assert (sandbox.gpus, sandbox.network) == (("all",), False)
    assert verify_sandbox(checkout, load_params(checkout), CUDA, gpu=False).gpus == ()


# What the caller's surroundings say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_process_inside_draws_as_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TLDR_RUN_ID", "TLDR_DEBUG", "NO_COLOR", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    for name, value in (("COLUMNS", "123"), ("LINES", "45"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    assert environment("podman") == {
        "TLDR_CONTAINER": "podman",
        "TERM": "xterm",
        "TTY_COMPATIBLE": "1",
        "COLUMNS": "123",
        "LINES": "45",
    }


@pytest.mark.parametrize(("value", "gpus"), [(None, ("all",)), ("1", ("1",)), (" 0, GPU-5f ,", ("0", "GPU-5f"))])
def test_visible_gpus_are_those_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, value: str | None, gpus: tuple[str, ...]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus


@pytest.mark.parametrize("value", ["", " ", ",", "-1", "NoDevFiles", "0,-1"])
def test_a_caller_who_hides_every_gpu_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(UserError, match=r"leaves no GPU to container\.device = cuda; unset it"):
        visible_gpus()


def test_files_that_may_hold_a_password_are_empty_inside(checkout: Path) -> None:
    (checkout / ".git").mkdir()
    for name in (".git/config", ".dvc/config.local"):
        (checkout / name).write_text(SECRET)
    files = StageFiles((), (checkout / "artifacts" / "a.txt",), "cpu")
    mounts = stage_sandbox(checkout, load_params(checkout), "sample", files, CPU).mounts
    hidden = {mount.place for mount in mounts if mount.source == Path("/dev/null") and not mount.writable}
    assert hidden == {checkout / ".git" / "config", checkout / ".dvc" / "config.local"}


def test_a_container_is_stray_once_its_launcher_is_gone(tmp_path: Path) -> None:
    made = labels(tmp_path, "train")
    assert made == {
        f"{LABEL}.checkout": str(tmp_path),
        f"{LABEL}.stage": "train",
        f"{LABEL}.owner": owner(),
        f"{LABEL}.launcher": f"{os.getpid()}-{process_start(os.getpid())}",
    }
    assert not is_stray(made)
    with subprocess.Popen(["sleep", "60"]) as launcher:
        others = made | {f"{LABEL}.launcher": f"{launcher.pid}-{process_start(launcher.pid)}"}
        assert not is_stray(others)
        launcher.kill()
    assert is_stray(others)


def test_a_process_number_that_is_used_again_is_not_the_launcher() -> None:
    start_of_another = int(str(process_start(os.getpid()))) - 1
    mine = {f"{LABEL}.owner": owner()}
    assert is_stray(mine | {f"{LABEL}.launcher": f"{os.getpid()}-{start_of_another}"})
    assert is_stray(mine | {f"{LABEL}.launcher": "toy"})
    assert is_stray(mine)


def test_what_another_user_machine_or_namespace_started_is_never_a_stray() -> None:
    """Its launcher may live where we see no process of that number."""
    user, rest = owner().split("@")
    machine, namespace = rest.rsplit("/", 1)
    gone = {f"{LABEL}.launcher": "1-0"}
    assert is_stray(gone | {f"{LABEL}.owner": owner()})
    for theirs in (f"{int(user) + 1}@{rest}", f"{user}@other-{rest}", f"{user}@{machine}/{int(namespace) + 1}"):
        assert not is_stray(gone | {f"{LABEL}.owner": theirs})
    assert not is_stray(gone)


def test_start_of_a_process_is_read_whatever_its_name_is(tmp_path: Path) -> None:
    """The name stands in parentheses in /proc/PID/stat, and may hold some itself."""
    odd = tmp_path / "a) R 1 (b"
    shutil.copy(shutil.which("sleep") or "sleep", odd)
    with subprocess.Popen([odd, "60"]) as process:
        own = int(str(process_start(os.getpid())))
        assert own <= int(str(process_start(process.pid))) < own + 10**6
        process.kill()
