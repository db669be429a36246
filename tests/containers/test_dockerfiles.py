"""Both Dockerfiles: linted, and written so that every engine builds them and nothing in them moves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from containers.cpu.verify import CONTRACT as CPU
from containers.cuda.verify import CONTRACT as CUDA
from containers.image_checks import FOLDERS, Contract
from tests.paths import ROOT

NAMES = ("cpu", "cuda")
LABELS = {
    *(f"org.opencontainers.image.{key}" for key in ("title", "description", "licenses", "version")),
    *("org.opencontainers.image.base.name", "org.opencontainers.image.base.digest", "io.tldr.image", "io.tldr.inputs"),
}
PINNED = re.compile(r"BASE_IMAGE=[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def path_of(name: str) -> Path:
    return ROOT / "containers" / name / "Dockerfile"


def instructions(name: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of each logical line, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", path_of(name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], " ".join(line.split(None, 1)[1].split())) for line in lines]


def arguments(name: str, instruction: str) -> list[str]:
    return [rest for found, rest in instructions(name) if found == instruction]


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path_of(name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_base_is_pinned_by_digest_and_the_only_one(name: str) -> None:
    assert PINNED.fullmatch(arguments(name, "ARG")[0])
    assert arguments(name, "FROM") == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


@pytest.mark.parametrize("name", NAMES)
def test_ends_as_an_unnamed_user_under_tini(name: str) -> None:
    assert arguments(name, "USER")[-1] == "10001:10001"
    assert arguments(name, "ENTRYPOINT") == ['["tini", "--"]']
    assert [found for found, _ in instructions(name)][-3:] == ["USER", "ENTRYPOINT", "CMD"]


@pytest.mark.parametrize("name", NAMES)
def test_classic_builder_can_read_it(name: str) -> None:
    text = path_of(name).read_text(encoding="utf-8")
    assert not re.search(r"^# *syntax=", text, re.MULTILINE)
    for found, rest in instructions(name):
        assert "<<" not in rest and not (found in {"RUN", "COPY"} and re.search(r"^--(mount|network|chmod|link)", rest))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_taken_from_the_network_unchecked(name: str) -> None:
    assert arguments(name, "ADD") == []
    for rest in arguments(name, "RUN"):
        assert not re.search(r"\b(curl|wget|git)\b", rest)
        assert ("pip install" in rest) == all(word in rest for word in ("--require-hashes", "--no-deps"))


@pytest.mark.parametrize("name", NAMES)
def test_labels_say_what_it_is(name: str) -> None:
    (labels,) = arguments(name, "LABEL")
    assert set(re.findall(r"([\w.]+)=\"", labels)) == LABELS
    assert f'io.tldr.image="{name}"' in labels


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_written_goes_to_tmp(name: str) -> None:
    values = dict(re.findall(r"(\w+)=(\S+)", " ".join(arguments(name, "ENV"))))
    assert all(values[folder].startswith("/tmp") for folder in FOLDERS)
    assert values["USER"] == values["LOGNAME"] and values["PATH"].startswith("/opt/tldr/bin:")


def test_arguments_that_change_with_every_build_come_after_the_packages() -> None:
    for name in NAMES:
        order = [f"{found} {rest}" for found, rest in instructions(name)]
        assert order.index("ARG INPUTS=unknown") > order.index("COPY --from=build /opt/tldr /opt/tldr")


def test_both_end_alike() -> None:
    """After the packages the images differ in their names and in what the base needs in its environment."""
    ends = []
    for name in NAMES:
        lines = [f"{found} {rest}" for found, rest in instructions(name) if found not in {"LABEL", "ENV"}]
        ends.append(
            [line.replace(name, "NAME") for line in lines[lines.index("COPY --from=build /opt/tldr /opt/tldr") :]]
        )
    assert ends[0] == ends[1]


@pytest.mark.parametrize("contract", [CPU, CUDA], ids=NAMES)
def test_verify_script_promises_what_pyproject_pins(contract: Contract) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"torch=={contract.torch.partition("+")[0]}"' in text
    assert all(f'"{name}=={version}"' in text for name, version in contract.versions.items())
