"""Where a stage runs is where params.yaml says: the wrong place is refused, the right one recorded in every result."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from containers.images import image_record, make_images, read_images, write_images
from stages import _provenance
from stages._errors import ContainerExit, UserError
from stages._params import Params, load_params
from stages._provenance import place, provenance
from stages.cli.report import _places, short
from stages.cli.run import KILLED_ADVICE, check_place, run_in_container
from tests.cli.conftest import enter, make_checkout
from tests.paths import ROOT

DVC_YAML = """
stages:
  sample:
    cmd: python -m stages run sample
    deps: [behaviour.txt]
    params: [seed, {containers/images.yaml: ["run_in.${container.engine}.${container.device}"]}]
    outs: [artifacts/sample.txt]
"""
Enter = Callable[[dict[str, str] | str | None], None]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toy stages, the real containers/ with a current lock, DVC without git, and no engine on PATH; the current folder."""
    root = make_checkout(tmp_path / "checkout")
    ignore = shutil.ignore_patterns("__pycache__", "wheels")
    shutil.copytree(ROOT / "containers", root / "containers", ignore=ignore)
    write_images(root, make_images(root, {}, {}))
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("TLDR_CONTAINER", "TLDR_SIF_DIR"):
        monkeypatch.delenv(name, raising=False)
    return enter(root, monkeypatch)


@pytest.fixture
def enter_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Make this process believe that it is in an image that says this of itself; None: in none."""

    def say(image: dict[str, str] | str | None) -> None:
        path = tmp_path / "tldr-image.json"
        monkeypatch.setattr(_provenance, "IMAGE_FILE", path)
        path.unlink(missing_ok=True)
        if image is not None:
            path.write_text(image if isinstance(image, str) else json.dumps(image))

    say(None)
    return say


def use(root: Path, engine: str, device: str = "cpu") -> Params:
    """Set engine and device in params.yaml."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  engine: \w+", f"  engine: {engine}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^  device: \w+", f"  device: {device}", text, count=1, flags=re.MULTILINE)
    (root / "params.yaml").write_text(text, encoding="utf-8")
    params = load_params(root)
    assert (params.container.engine, params.container.device) == (engine, device)
    return params


def locked(root: Path, name: str = "cpu") -> dict[str, str]:
    return image_record(read_images(root)[name])


def refusal(root: Path, params: Params) -> str:
    with pytest.raises(UserError) as refused:
        check_place(root, params)
    return str(refused.value)


def last_exit(root: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((root / ".tldr" / "last_exit.json").read_text())
    return record


# Which process runs the stage


@pytest.mark.parametrize(("engine", "contained"), [("host", False), ("docker", True), ("podman", True)])
def test_outside_an_image_the_engine_decides(checkout: Path, enter_image: Enter, engine: str, contained: bool) -> None:
    assert check_place(checkout, use(checkout, engine)) == contained


@pytest.mark.parametrize("engine", ["docker", "podman", "apptainer"])
def test_in_the_locked_image_the_stage_runs_here(
    checkout: Path, enter_image: Enter, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("TLDR_CONTAINER", engine)
    enter_image(locked(checkout, "cuda"))
    assert check_place(checkout, use(checkout, engine, "cuda")) is False


def test_host_may_be_inside_any_image(checkout: Path, enter_image: Enter) -> None:
    """As on Slurm or Kubernetes, where something else has started the container."""
    enter_image({"name": "cpu", "base": "toy", "inputs": "toy"})
    assert check_place(checkout, use(checkout, "host")) is False


@pytest.mark.parametrize(("engine", "variable"), [("docker", "docker"), ("host", "host"), ("docker", "")])
def test_the_host_cannot_pass_for_a_container(
    checkout: Path, enter_image: Enter, monkeypatch: pytest.MonkeyPatch, engine: str, variable: str
) -> None:
    monkeypatch.setenv("TLDR_CONTAINER", variable)
    assert refusal(checkout, use(checkout, engine)) == (
        f"TLDR_CONTAINER is set, but this is no container that tldr started for {engine}; unset it."
    )


def test_a_container_of_one_engine_cannot_pass_for_another(
    checkout: Path, enter_image: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLDR_CONTAINER", "podman")
    enter_image(locked(checkout))
    assert "is no container that tldr started for docker; unset it." in refusal(checkout, use(checkout, "docker"))


def test_no_container_is_started_inside_one(checkout: Path, enter_image: Enter) -> None:
    enter_image(locked(checkout))
    assert refusal(checkout, use(checkout, "docker")) == (
        "This process is inside the image cpu already; set container.engine to host, or run outside it for docker."
    )


@pytest.mark.parametrize("key", ["inputs", "base"])
def test_another_image_than_the_locked_one_is_refused(
    checkout: Path, enter_image: Enter, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("TLDR_CONTAINER", "docker")
    enter_image(locked(checkout) | {key: "toy"})
    assert refusal(checkout, use(checkout, "docker")) == (
        "The image cpu that this process runs in is not the locked one; run `tldr images build cpu`."
    )


@pytest.mark.parametrize("text", ["", "[]", '{"name": "cpu"}'])
def test_an_image_that_cannot_say_what_it_is_is_refused(checkout: Path, enter_image: Enter, text: str) -> None:
    enter_image(text)
    assert refusal(checkout, use(checkout, "host")).endswith(
        "of this image is broken; build the image anew with `tldr images build`."
    )


# What results record


def test_a_result_says_where_it_was_made(checkout: Path, enter_image: Enter) -> None:
    host, docker = use(checkout, "host"), use(checkout, "docker", "cuda")
    engine = f"hf {version('transformers')}"
    assert place(host) == {
        "engine": engine,
        "container_engine": "host",
        "container_device": "cpu",
        "container_image": None,
    }
    assert provenance(host, "sample", ("seed",), __file__)["image"] is None
    image = locked(checkout, "cuda")
    enter_image(image)
    assert place(docker) == {
        "engine": engine,
        "container_engine": "docker",
        "container_device": "cuda",
        "container_image": f"cuda@{image['inputs']}",
    }
    record = provenance(use(checkout, "docker", "cpu"), "sample", ("seed",), __file__)
    assert (record["container_engine"], record["device"], record["image"]) == ("docker", "cpu", image)


def test_the_report_names_every_place_that_a_result_comes_from(tmp_path: Path) -> None:
    image = f"cuda@sha256:{'5' * 64}"
    docker = {"container_engine": "docker", "container_device": "cuda", "container_image": image}
    host = {"container_engine": "host", "container_device": "cuda", "container_image": None}
    (tmp_path / "results").mkdir()
    for name in ("base", "metrics"):
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(docker))
    assert _places(tmp_path, docker) == {"engine": "docker", "device": "cuda", "image": image}
    (tmp_path / "results" / "base.json").write_text(json.dumps(host))
    mixed = _places(tmp_path, docker)
    assert mixed == {"engine": "docker and host", "device": "cuda", "image": f"{image} and none"}
    assert short(mixed["image"]) == "cuda:555555555555 and none"
    (tmp_path / "results" / "base.json").unlink()
    assert _places(tmp_path, docker)["engine"] == "docker and not recorded"


# An engine that is not here: one sentence, exit code 2, and the record of it


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("podman", "The command podman is not on this machine; install it, or set container.engine to another."),
        ("apptainer", "The command apptainer is not on this machine; install it, or set container.engine to another."),
        ("docker", "No Docker daemon answers ({reason}); start it (`sudo systemctl start docker`), or set "
                   "container.engine to another engine."),
    ],
)  # fmt: skip
def test_missing_engine_is_one_sentence(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, engine: str, sentence: str
) -> None:
    use(checkout, engine)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{checkout}/nonexistent.sock")
    command = [sys.executable, "-m", "stages", "run", "sample"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    first, *others = answer.stderr.splitlines()
    image = read_images(checkout)["cpu"].reference
    assert first == f"sample: container engine {engine}, device cpu, image {image}"
    expected = re.escape(f"Error: {sentence}").replace(re.escape("{reason}"), "[^()]+.*")
    assert len(others) == 1
    assert re.fullmatch(expected, others[0])
    record = last_exit(checkout)
    assert (record["stage"], record["exit_code"]) == ("sample", 2)
    assert f"Error: {record['message']}" == others[0]
    assert not (checkout / "artifacts" / "sample.txt").exists()


def test_edited_build_files_start_no_engine(checkout: Path) -> None:
    with (checkout / "containers" / "cpu" / "Dockerfile").open("a") as stream:
        stream.write("# edited\n")
    params = use(checkout, "podman")
    with pytest.raises(UserError, match="containers/cpu has changed since"):
        run_in_container(checkout, "sample", params)


# A toy podman: it knows the locked image, writes down what it is called with, and ends as it is told.

PODMAN = """#!/bin/sh
[ "$1" = image ] && echo {inputs} && exit 0
for word in "$@"; do echo "$word"; done > {root}/called
echo '{{"stage": "sample", "exit_code": {code}, "message": "The toy says why."}}' > {record}
echo written; echo said >&2
exit {code}
"""


def put_podman(root: Path, code: int, inputs: str) -> None:
    record = root / ".tldr" / "inside" / "sample" / "last_exit.json"
    path = root.parent / "bin" / "podman"
    path.write_text(PODMAN.format(inputs=inputs, root=root, code=code, record=record))
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("code", "message"), [(1, "The toy says why."), (75, "The toy says why."), (137, KILLED_ADVICE)]
)
def test_the_stages_code_and_reason_come_out_of_the_container(
    checkout: Path, capfd: pytest.CaptureFixture[str], code: int, message: str
) -> None:
    put_podman(checkout, code, locked(checkout)["inputs"])
    with pytest.raises(ContainerExit) as ended:
        run_in_container(checkout, "sample", use(checkout, "podman"))
    assert (ended.value.code, ended.value.message) == (code, message)
    called = (checkout / "called").read_text().splitlines()
    assert called[0] == "run"
    assert called[-6:] == ["containers.inside", "python3", "-m", "stages", "run", "sample"]
    assert f"--mount=type=bind,source={checkout},destination={checkout},readonly" in called
    out, err = capfd.readouterr()
    assert out == "written\n"
    assert ("said\n" in err, KILLED_ADVICE in err) == (True, code == 137)


def test_a_stage_that_ends_well_leaves_no_record_behind(checkout: Path) -> None:
    put_podman(checkout, 0, locked(checkout)["inputs"])
    run_in_container(checkout, "sample", use(checkout, "podman"))
    assert not (checkout / ".tldr" / "inside" / "sample").exists()


def test_podmans_image_has_to_be_the_locked_one(checkout: Path) -> None:
    put_podman(checkout, 0, "sha256:1")
    with pytest.raises(
        UserError, match=r"was not built from the locked inputs; run `tldr images build cpu --engine podman`"
    ):
        run_in_container(checkout, "sample", use(checkout, "podman"))
    assert not (checkout / "called").exists()


def test_apptainer_needs_its_image_file(checkout: Path) -> None:
    path = checkout.parent / "bin" / "apptainer"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    image = read_images(checkout)["cpu"].reference.replace(":", "-")
    sentence = f"{checkout}/.tldr/images/{image}.sif does not exist; run `tldr images build cpu --engine apptainer`"
    with pytest.raises(UserError, match=re.escape(sentence)):
        run_in_container(checkout, "sample", use(checkout, "apptainer"))
