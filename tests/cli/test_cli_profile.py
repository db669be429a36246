"""`tldr profile`: the overlays, and what each would change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from stages.__main__ import main
from stages._errors import UserError
from stages._params import check_params, read_yaml
from stages.cli._overrides import apply_overrides, with_overrides
from stages.cli.profile import command, first_comment, overlay_of, overlay_pairs, profile_changes, profile_names
from stages.data.pins import pins
from stages.data.sources import read_sources, task_benchmarks, wanted_sets
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


def leaves(overlay: dict[str, Any], prefix: str = "") -> set[str]:
    """Keys that an overlay names; a repository of the hub counts as one value."""
    found = set()
    for name, value in overlay.items():
        inner = isinstance(value, dict) and "repo" not in value
        found |= leaves(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return found


def test_every_shipped_profile_names_the_keys_of_tiny_and_makes_valid_parameters() -> None:
    """So that any of them can be left for any other."""
    names = set(profile_names(ROOT))
    assert names >= {"tiny", "r1-1.5b", "r1-7b", "r1-14b", "paper-7b", "paper-14b"}
    every = leaves(overlay_of(ROOT, "tiny"))
    for name in names:
        assert leaves(overlay_of(ROOT, name)) == every, name
        apply_overrides(read_yaml(ROOT / "params.yaml"), overlay_pairs(ROOT, name))
        assert first_comment(ROOT / "profiles" / f"{name}.yaml")
    assert profile_changes(ROOT, "tiny") == [], "params.yaml as committed is the profile tiny"


def test_the_profiles_of_the_experiment_fetch_their_models_and_problem_sets() -> None:
    for name in profile_names(ROOT):
        if not name.startswith(("r1-", "paper-")):
            continue
        params = with_overrides(read_yaml(ROOT / "params.yaml"), overlay_pairs(ROOT, name))
        assert {pin.key for pin in pins(params)} == {"fetch.model", "fetch.short_model"}
        size = name.partition("-")[2]
        assert all(f"-{size}" in pin.repo.lower() for pin in pins(params)), name
        wanted = wanted_sets(read_sources(ROOT), params)
        assert {made.role for made in wanted.values()} == {"system1", "system2", "control", "test"}
        assert len(task_benchmarks(ROOT, params)) == len(params.evaluate.tasks) == 7


def like(folder: Path, name: str, other: str, rest: str = "") -> None:
    (folder / f"{name}.yaml").write_text(f"profile: {name}\nlike: {other}\n{rest}")


def test_a_profile_like_another_names_what_differs(profiles: Path) -> None:
    like(profiles, "fast", "toy", "train: {max_steps: 16}\n")
    assert overlay_of(profiles.parent, "fast") == {"profile": "fast", "train": {"max_steps": 16, "lr": 0.0003}}
    like(profiles, "one", "two")
    like(profiles, "two", "one")
    with pytest.raises(UserError, match=r"profiles/two\.yaml is like one, which is like two in the end"):
        overlay_of(profiles.parent, "one")
    like(profiles, "lost", "nobody")
    with pytest.raises(UserError, match="There is no profile 'nobody'"):
        overlay_of(profiles.parent, "lost")


def test_use_writes_the_values_keeps_comments_and_goes_back(checkout: Path, tldr: Tldr) -> None:
    shutil.copytree(ROOT / "profiles", checkout / "profiles")
    before = (checkout / "params.yaml").read_text()
    for name in ("r1-7b", "paper-14b", "tiny-docker", "r1-1.5b"):
        answer = tldr("profile", "use", name)
        assert answer.returncode == 0, answer.stderr
        assert overlay_pairs(checkout, name) == []
        assert "# how answers are graded" in (checkout / "params.yaml").read_text()
        check_params(read_yaml(checkout / "params.yaml"), "params.yaml")
    assert tldr("profile", "use", "tiny").returncode == 0
    after = (checkout / "params.yaml").read_text()
    assert read_yaml(checkout / "params.yaml") == read_yaml(ROOT / "params.yaml")
    assert [line.partition("#")[2] for line in after.splitlines()] == [
        line.partition("#")[2] for line in before.splitlines()
    ]
    assert "already" in tldr("profile", "use", "tiny").stdout and (checkout / "params.yaml").read_text() == after


def test_use_does_not_overwrite_what_was_edited_by_hand(profiles: Path, tldr: Tldr) -> None:
    path = profiles.parent / "params.yaml"
    (profiles / "tiny.yaml").write_text("profile: tiny\ntrain: {max_steps: 96, lr: 0.0003}\n")
    path.write_text(
        path.read_text()
        .replace("max_steps: 96", "max_steps: 64")
        .replace("weight_decay: 0.0\n", "weight_decay: 0.1\n", 1)
    )
    edited = path.read_text()
    refused = tldr("profile", "use", "toy")
    assert refused.returncode == 2 and "profile toy would overwrite train.max_steps; put" in refused.stderr
    assert path.read_text() == edited
    forced = tldr("profile", "use", "toy", "--force")
    assert forced.returncode == 0, forced.stderr
    document = read_yaml(path)
    assert (document["profile"], document["train"]["max_steps"], document["train"]["weight_decay"]) == ("toy", 32, 0.1)
    path.write_text(path.read_text().replace("profile: toy", "profile: gone"))
    assert "there is no profiles/gone.yaml to tell what was edited" in tldr("profile", "use", "bare").stderr
