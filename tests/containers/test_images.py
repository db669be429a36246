"""The image lock and `tldr images`: what the digest covers, what is refused, and which stages an edit runs again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from containers.images import (
    ENGINES,
    LOCK,
    NAMES,
    Image,
    check_inputs,
    dockerfile_base,
    image_record,
    inputs_digest,
    make_images,
    read_images,
    write_images,
)
from stages.__main__ import main
from stages._errors import UserError
from stages._params import read_yaml
from stages._provenance import current_image
from tests.paths import ROOT

OTHER_BASE = f"example.org/base:1@sha256:{'5' * 64}"
PUSHED = f"example.org/tldr-cpu@sha256:{'6' * 64}"
OTHER_DIGEST = f"sha256:{'7' * 64}"
RUN = ["sample", "label-by-length", "ratio-schedule", "train", "evaluate@base", "evaluate@candidate"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `tldr images` reads, with a current lock; the current folder."""
    ignore = shutil.ignore_patterns("__pycache__", "wheels")
    shutil.copytree(ROOT / "containers", tmp_path / "containers", ignore=ignore)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_images(tmp_path, make_images(tmp_path, {}, {}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tldr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="tldr")


def add_line(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")


def set_engine(root: Path, engine: str, device: str) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  engine: \w+", f"  engine: {engine}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^  device: \w+", f"  device: {device}", text, count=1, flags=re.MULTILINE)
    (root / "params.yaml").write_text(text, encoding="utf-8")


def set_inputs(root: Path, name: str, digest: str) -> None:
    """Edit the lock by hand: another inputs digest of one image, nothing else."""
    pattern, path = rf"(  {name}: &{name}\n(?:    .*\n)*?    inputs: )\S+", root / LOCK
    text, number = re.subn(pattern, rf"\g<1>{digest}", path.read_text(encoding="utf-8"))
    assert number == 1
    path.write_text(text, encoding="utf-8")


# The lock


def test_lock_is_read_as_it_is_written(tmp_path: Path) -> None:
    written = {
        "cpu": Image("cpu", "toy-cpu:1", OTHER_BASE, OTHER_DIGEST, PUSHED),
        "cuda": Image("cuda", "toy-cuda:2", OTHER_BASE, f"sha256:{'8' * 64}", None),
    }
    write_images(tmp_path, written)
    assert read_images(tmp_path) == written


def test_run_in_repeats_each_image_and_says_host_on_the_host(checkout: Path) -> None:
    document = read_yaml(checkout / LOCK)
    assert set(document["images"]) == set(NAMES)
    assert all(set(image) == {"reference", "base", "inputs"} for image in document["images"].values())
    wanted: dict[str, Any] = dict.fromkeys(ENGINES, document["images"])
    assert document["run_in"] == wanted | {"host": {"cpu": "host", "cuda": "host"}}


@pytest.mark.parametrize("name", NAMES)
def test_committed_lock_is_current(name: str) -> None:
    image = read_images(ROOT)[name]
    assert image.inputs == inputs_digest(ROOT, name, image.base), "run `tldr images lock --digests-only`"
    assert image.base == dockerfile_base(ROOT, name)
    assert image.reference == f"tldr-reweight-{name}:{image.inputs.removeprefix('sha256:')[:12]}"


def test_an_image_says_of_itself_what_a_result_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_images(ROOT)["cpu"]
    monkeypatch.setattr("stages._provenance.IMAGE_FILE", tmp_path / "image.json")
    (tmp_path / "image.json").write_text(json.dumps(image_record(image)))
    assert current_image() == {"name": "cpu", "base": image.base, "inputs": image.inputs}


@pytest.mark.parametrize(
    "text",
    [
        "images: {}\n",
        "images\n",
        "",
        f"images: {{cpu: {{reference: a, base: b, inputs: {OTHER_DIGEST}}}}}\npublished: {{cpu: null, cuda: null}}\n",
        "images: {cpu: {reference: a}, cuda: {reference: b}}\npublished: {cpu: null, cuda: null}\n",
    ],
)
def test_broken_lock_is_one_sentence(checkout: Path, text: str) -> None:
    (checkout / LOCK).write_text(text)
    answer = tldr("images", "list")
    assert answer.exit_code == 2
    assert answer.stderr == (
        "Error: containers/images.yaml is not a whole image lock; restore it with git, or write it anew with "
        "`tldr images lock`.\n"
    )


# What the inputs digest covers


@pytest.mark.parametrize("name", NAMES)
def test_every_build_file_changes_the_digest(checkout: Path, name: str) -> None:
    base = dockerfile_base(checkout, name)
    seen = [inputs_digest(checkout, name, base)]
    files = sorted(path for path in (checkout / "containers" / name).iterdir() if path.is_file())
    assert {"Dockerfile", "requirements.lock", "verify.py"} <= {path.name for path in files}
    for path in [*files, checkout / "containers" / "image_checks.py"]:
        add_line(path)
        seen.append(inputs_digest(checkout, name, base))
    (checkout / "containers" / name / "new.txt").write_text("")
    seen.append(inputs_digest(checkout, name, base))
    (checkout / "containers" / name / "new.txt").rename(checkout / "containers" / name / "renamed.txt")
    seen.append(inputs_digest(checkout, name, base))
    seen.append(inputs_digest(checkout, name, OTHER_BASE))
    assert len(set(seen)) == len(seen)


def test_caches_wheels_and_the_other_image_do_not_change_the_digest(checkout: Path) -> None:
    base = dockerfile_base(checkout, "cpu")
    before = inputs_digest(checkout, "cpu", base)
    for place in ("cpu/__pycache__", "cpu/.mypy_cache/3.12", "__pycache__", "wheels"):
        (checkout / "containers" / place).mkdir(parents=True)
        (checkout / "containers" / place / "toy").write_text("toy")
    for path in ("cuda/Dockerfile", "sandbox.py", "images.yaml"):
        add_line(checkout / "containers" / path)
    assert inputs_digest(checkout, "cpu", base) == before


def test_edited_build_file_is_said_with_the_next_step(checkout: Path) -> None:
    images = read_images(checkout)
    check_inputs(checkout, images["cuda"])
    add_line(checkout / "containers" / "cuda" / "verify.py")
    check_inputs(checkout, images["cpu"])
    sentence = (
        "containers/cuda has changed since containers/images.yaml was written; run `tldr images lock --digests-only`, "
        "then `tldr images build cuda`."
    )
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        check_inputs(checkout, images["cuda"])


@pytest.mark.parametrize("line", ["ARG BASE_IMAGE=python:3.12", "ARG BASE_IMAGE=python@sha256:12", "FROM python"])
def test_base_that_is_not_pinned_is_refused(checkout: Path, line: str) -> None:
    path = checkout / "containers" / "cpu" / "Dockerfile"
    text, number = re.subn(r"^ARG BASE_IMAGE=\S+$", line, path.read_text(), count=1, flags=re.MULTILINE)
    assert number == 1
    path.write_text(text)
    before = (checkout / LOCK).read_bytes()
    answer = tldr("images", "lock", "--digests-only")
    assert answer.exit_code == 2
    assert answer.stderr == (
        f"Error: {path} must hold a line ARG BASE_IMAGE=NAME:TAG@sha256:DIGEST; pin its base and run again.\n"
    )
    assert (checkout / LOCK).read_bytes() == before


# `tldr images`


def test_lock_of_unchanged_files_is_the_same_file(checkout: Path) -> None:
    before = (checkout / LOCK).read_bytes()
    answer = tldr("images", "lock", "--digests-only")
    assert answer.exit_code == 0
    assert [line.rpartition(": ")[2] for line in answer.stderr.splitlines()] == ["unchanged", "unchanged"]
    assert (checkout / LOCK).read_bytes() == before


def test_missing_lock_is_written_anew(checkout: Path) -> None:
    before = (checkout / LOCK).read_bytes()
    (checkout / LOCK).unlink()
    assert tldr("images", "lock", "--digests-only").exit_code == 0
    assert (checkout / LOCK).read_bytes() == before


def test_lock_names_the_image_that_has_to_be_built(checkout: Path) -> None:
    before = read_images(checkout)
    add_line(checkout / "containers" / "cpu" / "requirements.lock")
    answer = tldr("images", "lock", "--digests-only")
    after = read_images(checkout)
    assert answer.stderr == (
        f"{after['cpu'].reference}: new, build it with `tldr images build`\n{after['cuda'].reference}: unchanged\n"
    )
    assert after["cuda"] == before["cuda"]
    assert after["cpu"].inputs != before["cpu"].inputs
    assert after["cpu"].reference != before["cpu"].reference


def test_lock_takes_another_base(checkout: Path) -> None:
    before = read_images(checkout)
    assert tldr("images", "lock", "--digests-only", "--base", f"cpu={OTHER_BASE}").exit_code == 0
    after = read_images(checkout)
    assert after["cpu"].base == OTHER_BASE
    assert after["cpu"].inputs == inputs_digest(checkout, "cpu", OTHER_BASE) != before["cpu"].inputs
    assert after["cuda"] == before["cuda"]


def test_published_digest_is_kept_while_the_inputs_are_the_same(checkout: Path) -> None:
    assert tldr("images", "lock", "--digests-only", "--published", f"cpu={PUSHED}").exit_code == 0
    published = read_images(checkout)
    assert (published["cpu"].published, published["cuda"].published) == (PUSHED, None)
    add_line(checkout / "containers" / "cuda" / "Dockerfile")
    assert tldr("images", "lock", "--digests-only").exit_code == 0
    assert read_images(checkout)["cpu"] == published["cpu"]
    add_line(checkout / "containers" / "cpu" / "Dockerfile")
    assert tldr("images", "lock", "--digests-only").exit_code == 0
    assert read_images(checkout)["cpu"].published is None


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--base", "cpu=python:3.12", "The base 'python:3.12' of image cpu is not pinned; give it as NAME@sha256:DIGEST."),
        ("--base", "gpu=x", "--base 'gpu=x' is not NAME=IMAGE@sha256:DIGEST with NAME one of cpu, cuda."),
        ("--published", "cpu", "--published 'cpu' is not NAME=IMAGE@sha256:DIGEST with NAME one of cpu, cuda."),
    ],
)  # fmt: skip
def test_bad_lock_options_are_refused(checkout: Path, option: str, value: str, part: str) -> None:
    before = (checkout / LOCK).read_bytes()
    answer = tldr("images", "lock", "--digests-only", option, value)
    assert (answer.exit_code, answer.stderr) == (2, f"Error: {part}\n")
    assert (checkout / LOCK).read_bytes() == before


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("exit 1", "docker does not answer"),
        ('[ "$1" = version ]', "not here"),
        ("echo {inputs}", "ready"),
        ("echo sha256:1", "built from other inputs"),
        ("echo", "built from other inputs"),
        (None, "docker is not installed"),
    ],
)
def test_list_says_whether_an_image_is_here(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, state: str
) -> None:
    """A toy `docker` answers the question for the label of the cpu image."""
    cpu = read_images(checkout)["cpu"]
    (checkout / "bin").mkdir()
    monkeypatch.setenv("PATH", str(checkout / "bin"))
    if script is not None:
        (checkout / "bin" / "docker").write_text(f"#!/bin/sh\n{script.format(inputs=cpu.inputs)}\n")
        (checkout / "bin" / "docker").chmod(0o755)
    answer = tldr("images", "list", "--json")
    assert answer.exit_code == 0
    assert [row["name"] for row in json.loads(answer.stdout)] == ["cpu", "cuda"]
    assert json.loads(answer.stdout)[0] == {
        "name": "cpu",
        "reference": cpu.reference,
        "base": cpu.base,
        "inputs": cpu.inputs,
        "published": None,
        "engine": "docker",
        "state": state,
    }


def test_list_asks_the_engine_that_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    set_engine(checkout, "podman", "cpu")
    for arguments, engine in (((), "podman"), (("--engine", "apptainer"), "apptainer")):
        rows = json.loads(tldr("images", "list", "--json", *arguments).stdout)
        assert {(row["engine"], row["state"]) for row in rows} == {(engine, f"{engine} is not installed")}


@pytest.mark.parametrize("command", ["build", "pull", "verify"])
def test_unknown_image_lists_the_images(checkout: Path, command: str) -> None:
    answer = tldr("images", command, "gpu")
    assert answer.exit_code == 2
    assert answer.stderr == "Error: There is no image 'gpu'; the images are cpu, cuda.\n"


def test_pull_of_an_unpublished_image_says_what_to_do(checkout: Path) -> None:
    answer = tldr("images", "pull", "cuda")
    assert answer.exit_code == 2
    assert answer.stderr == (
        "Error: The image cuda is not published: containers/images.yaml names no registry digest for it; run "
        "`tldr images build cuda`, or lock one with `tldr images lock --published cuda=NAME@sha256:...`.\n"
    )


def test_pull_of_an_image_with_other_inputs_gives_it_no_name(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy `docker` writes down what it is called with; its image was built from something else."""
    (checkout / "docker").write_text('#!/bin/sh\necho "$@" >> calls\n[ "$1" = image ] && echo sha256:1\nexit 0\n')
    (checkout / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout))
    write_images(checkout, make_images(checkout, {}, {"cpu": PUSHED}))
    answer = tldr("images", "pull", "cpu")
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"Error: {PUSHED} was built from other inputs (sha256:1) than ")
    assert [line.split()[0] for line in (checkout / "calls").read_text().splitlines()] == ["pull", "image"]


def test_build_of_edited_files_starts_no_engine(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    add_line(checkout / "containers" / "cpu" / "Dockerfile")
    answer = tldr("images", "build", "cpu")
    assert (answer.exit_code, "containers/cpu has changed" in answer.stderr) == (2, True)
    assert tldr("images", "lock", "--digests-only").exit_code == 0
    answer = tldr("images", "build", "cpu")
    assert answer.exit_code == 2
    assert answer.stderr == (
        "Error: The command docker is not on this machine; install it, or choose another --engine.\n"
    )


# The lock as parameters of the stages, with the real DVC

Repro = Callable[[], list[str]]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages of dvc.yaml with their real parameters and nothing else of them; no run yet."""
    import ruamel.yaml
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("pipeline")
    bodies = {name: body.get("do", body) for name, body in read_yaml(ROOT / "dvc.yaml")["stages"].items()}
    stages: dict[str, Any] = {name: {"cmd": "echo x", "params": body["params"]} for name, body in bodies.items()}
    stages["evaluate"] = {"foreach": ["base", "candidate"], "do": stages["evaluate"]}
    with (root / "dvc.yaml").open("w") as stream:
        ruamel.yaml.YAML().dump({"stages": stages}, stream)
    shutil.copy(ROOT / "params.yaml", root)
    (root / "containers").mkdir()
    write_images(root, make_images(ROOT, {}, {}))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    Repo.init(str(root))
    return root


@pytest.fixture
def repro(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repro:
    """In a copy of `pipeline`, which is the current folder: the stages that a `dvc repro` runs, in the order of RUN."""
    from dvc.repo import Repo

    shutil.copytree(pipeline, tmp_path / "toy", symlinks=True)
    monkeypatch.chdir(tmp_path / "toy")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return lambda: sorted((stage.addressing for stage in Repo().reproduce()), key=RUN.index)


@pytest.mark.dvc
def test_edited_digest_runs_exactly_the_stages_of_its_image(repro: Repro) -> None:
    root = Path.cwd()
    set_engine(root, "docker", "cuda")
    assert repro() == RUN
    assert repro() == []
    set_inputs(root, "cuda", OTHER_DIGEST)
    assert repro() == ["sample", "ratio-schedule", "train", "evaluate@base", "evaluate@candidate"]
    set_inputs(root, "cpu", OTHER_DIGEST)
    assert repro() == ["label-by-length"]


@pytest.mark.dvc
def test_published_digest_runs_no_stage(repro: Repro) -> None:
    root = Path.cwd()
    set_engine(root, "docker", "cpu")
    assert repro() == RUN
    write_images(root, make_images(ROOT, {}, {"cpu": PUSHED, "cuda": PUSHED}))
    assert repro() == []


@pytest.mark.dvc
def test_edited_digest_runs_nothing_on_the_host(repro: Repro) -> None:
    root = Path.cwd()
    set_engine(root, "host", "cpu")
    assert repro() == RUN
    set_inputs(root, "cpu", OTHER_DIGEST)
    set_inputs(root, "cuda", OTHER_DIGEST)
    assert repro() == []
