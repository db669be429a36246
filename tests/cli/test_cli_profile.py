"""`tldr profile`: the overlays, and what each would change."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stages.__main__ import main
from stages._params import check_params, read_yaml
from stages.cli._overrides import apply_overrides
from stages.cli.profile import command, overlay_pairs, profile_names
from tests.cli.conftest import Tldr
from tests.paths import ROOT


@pytest.fixture
def profiles(checkout: Path) -> Path:
    folder = checkout / "profiles"
    folder.mkdir()
    (folder / "toy.yaml").write_text(
        "# A toy: fewer steps.\n# More.\nprofile: toy\ntrain: {max_steps: 32, lr: 0.0003}\n"
    )
    (folder / "bare.yaml").write_text("profile: bare\nfetch: {model: {repo: a/b, revision: " + "a" * 40 + "}}\n")
    return folder


def test_list_names_every_profile(profiles: Path, tldr: Tldr) -> None:
    answer = tldr("profile", "list")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == ["bare  ", "toy   A toy: fewer steps."]


def test_show_prints_what_differs(profiles: Path, tldr: Tldr) -> None:
    answer = tldr("profile", "show", "toy")
    assert answer.returncode == 0, answer.stderr
    assert [line.split() for line in answer.stdout.splitlines() if line[:1].isalpha()] == [
        ["key", "now", "then"],
        ["profile", '"tiny"', '"toy"'],
        ["train.max_steps", "96", "32"],
    ]
    assert json.loads(tldr("profile", "show", "bare", "--json").stdout) == [
        {"key": "profile", "now": "tiny", "then": "bare"},
        {"key": "fetch.model", "now": None, "then": {"repo": "a/b", "revision": "a" * 40}},
    ]
    (profiles / "tiny.yaml").write_text("profile: tiny\n")
    assert tldr("profile", "show", "tiny").stdout == "params.yaml holds every value of profile tiny already.\n"


@pytest.mark.parametrize(
    ("overlay", "part"),
    [
        ("profile: toy\ntrain: {max_step: 32}", "profiles/toy.yaml: params.yaml has no key train.max_step"),
        ("profile: toy\ntrain: {max_steps: 33}", "max_steps 33 must be a multiple of update_every 16"),
        ("profile: toy\ntrain:", "train = None"),
        ("profile: other", "profiles/toy.yaml must be a mapping that says `profile: toy`"),
        ("", "profiles/toy.yaml must be a mapping"),
        ("a: [", "toy.yaml is not valid YAML"),
    ],
)
def test_a_bad_overlay_is_one_sentence(profiles: Path, overlay: str, part: str) -> None:
    (profiles / "toy.yaml").write_text(overlay)
    answer = CliRunner().invoke(main, ["profile", "show", "toy"])
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert part in answer.stderr and answer.stderr.count("\n") == 1


def test_names_are_completed(profiles: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    show = command.get_command(click.Context(command), "show")
    assert show is not None
    (argument,) = (parameter for parameter in show.params if parameter.name == "name")

    def completed(start: str) -> list[str]:
        return [item.value for item in argument.shell_complete(click.Context(show), start)]

    assert (completed(""), completed("t")) == (["bare", "toy"], ["toy"])
    monkeypatch.chdir(tmp_path)
    assert completed("") == []


@pytest.mark.parametrize("name", profile_names(ROOT))
def test_every_shipped_profile_makes_valid_parameters(name: str) -> None:
    assert (ROOT / "profiles" / f"{name}.yaml").read_text().startswith("# ")
    document = read_yaml(ROOT / "params.yaml")
    check_params(document, "params.yaml")
    apply_overrides(document, overlay_pairs(ROOT, name))
