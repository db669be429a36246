"""`tldr ratio step | simulate`: the fixed contract, the defaults of the controllers, the drawing, refused values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stages.__main__ import main

BOUNDS = {"short-tokens": 1120.94, "long-tokens": 7379.61, "short-accuracy": 0.29, "long-accuracy": 0.76}
POINT = {"tokens": 6000, "accuracy": 0.74}
PAPER = {"controller": "paper", **BOUNDS}


def call(command: str, options: dict[str, Any], *flags: str) -> Result:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return CliRunner().invoke(main, ["ratio", command, *words, *flags], prog_name="tldr")


def as_json(command: str, options: dict[str, Any]) -> Any:
    answer = call(command, options, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without params.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("tokens", "accuracy", "share"),
    [(6000, 0.74, 0.9501), (5000, 0.70, 0.8774), (4000, 0.65, 0.7117), (3000, 0.60, 0.4599), (5500, 0.50, 0.6424)],
)
def test_golden_steps_of_the_paper_controller(nowhere: Path, tokens: float, accuracy: float, share: float) -> None:
    result = as_json("step", {**PAPER, "tokens": tokens, "accuracy": accuracy, "weight": 0.5})
    assert result.keys() == {"system1", "system2", "benefit1", "benefit2"}
    assert result["system1"] == pytest.approx(share, abs=5e-5)
    assert result["system1"] + result["system2"] == 1.0


def test_json_keeps_full_precision(nowhere: Path) -> None:
    result = as_json("step", {**PAPER, **POINT})
    assert result["benefit1"] == (6000 - 1120.94) / (7379.61 - 1120.94)


def test_robust_takes_its_settings_from_params_yaml(nowhere: Path) -> None:
    refused = call("step", {**BOUNDS, **POINT})
    assert refused.exit_code == 2
    assert "give --eta, --smoothing and --floor" in refused.stderr
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    (nowhere / "params.yaml").write_text(text.replace("floor: 0.1 ", "floor: 0.2 "))
    assert as_json("step", {**BOUNDS, **POINT})["system1"] == 0.8
    assert as_json("step", {**BOUNDS, **POINT, "floor": 0.05})["system1"] == pytest.approx(0.95)


def test_robust_runs_without_params_yaml_if_everything_is_given(nowhere: Path) -> None:
    settings = {"eta": 4, "smoothing": 1e-4, "floor": 0.1}
    assert as_json("step", {**BOUNDS, **POINT, **settings})["system1"] == 0.9


def test_step_without_json_is_two_lines(nowhere: Path) -> None:
    answer = call("step", {**PAPER, **POINT})
    assert answer.stdout.startswith("System-1 0.9501  System-2 0.0499\n")
    assert len(answer.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"long-tokens": 1000}, "long_tokens (1000) must be larger than short_tokens (1120.94)"),
        ({"long-tokens": 1120.94}, "long_tokens"),
        ({"long-accuracy": 0.2}, "long_accuracy (0.2) must be larger than short_accuracy (0.29)"),
        ({"accuracy": 74}, "--accuracy 74 is not between 0 and 1"),
        ({"short-accuracy": "nan"}, "--short-accuracy nan is not between 0 and 1"),
        ({"tokens": "inf"}, "tokens must be a number"),
        ({"tokens": 1e10}, "tokens must be a number"),
        ({"weight": 1.5}, "--weight 1.5 is not between 0 and 1"),
        ({"eta": 0}, "--eta 0 is not above 0"),
        ({"smoothing": 2}, "--smoothing 2 is not between 0 and 1"),
        ({"floor": 0.5}, "--floor 0.5 is not at least 0 and below 0.5"),
        ({"tokens": "many"}, "is not a valid float"),
        ({"controller": "magic"}, "is not one of"),
    ],
)
def test_bad_values_exit_with_2_and_a_sentence(nowhere: Path, changed: dict[str, Any], part: str) -> None:
    answer = call("step", {**PAPER, **POINT, **changed})
    assert answer.exit_code == 2
    assert part in answer.stderr
    assert answer.stdout == ""


def test_a_simulation_chains_the_steps(nowhere: Path) -> None:
    rows = as_json("simulate", {**PAPER, "updates": 3})
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert (rows[-1]["tokens"], rows[-1]["accuracy"]) == (1120.94, 0.29)
    share = 0.5
    for row in rows:
        step = as_json("step", {**PAPER, "tokens": row["tokens"], "accuracy": row["accuracy"], "weight": share})
        assert {name: row[name] for name in step} == step
        share = row["system1"]


def test_a_simulation_may_end_elsewhere_and_smooths_only_if_robust(nowhere: Path) -> None:
    options = {**BOUNDS, "final-tokens": 3000, "final-accuracy": 0.7, "eta": 1, "smoothing": 0, "floor": 0.1}
    rough = as_json("simulate", {**options, "controller": "robust", "benefit-smoothing": 0, "updates": 4})
    smooth = as_json("simulate", {**options, "controller": "robust", "benefit-smoothing": 0.5, "updates": 4})
    assert rough[-1]["tokens"] == 3000
    assert rough[0] == smooth[0]
    assert rough[1]["benefit1"] < smooth[1]["benefit1"]


def test_a_simulation_is_also_a_table(nowhere: Path) -> None:
    answer = call("simulate", {**PAPER, "updates": 2})
    assert answer.exit_code == 0
    assert answer.stdout.split()[:4] == ["update", "tokens", "accuracy", "system1"]
    assert "1120.9" in answer.stdout


LAGRANGIAN = {"controller": "lagrangian", **BOUNDS, "floor": 0.1, "margin": 0.01, "dual-step": 0.5, "dead-zone": 1}


def test_lagrangian_shows_its_multiplier_and_follows_the_constraint(nowhere: Path) -> None:
    spare = as_json("step", {**LAGRANGIAN, "tokens": 6000, "accuracy": 0.76})
    assert spare.keys() == {"system1", "system2", "benefit1", "benefit2", "multiplier"}
    assert spare["system1"] > 0.5
    assert as_json("step", {**LAGRANGIAN, "tokens": 6000, "accuracy": 0.70})["system1"] < 0.5
    unsure = as_json("step", {**LAGRANGIAN, "tokens": 6000, "accuracy": 0.70, "loss-se": 0.06})
    assert unsure["system1"] == pytest.approx(0.5)


def test_lagrangian_takes_its_settings_from_params_yaml(nowhere: Path) -> None:
    refused = call("step", {"controller": "lagrangian", **BOUNDS, **POINT})
    assert refused.exit_code == 2
    assert "give --floor, --margin, --dual-step and --dead-zone" in refused.stderr
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    assert "dual_step: 0.5 " in text
    (nowhere / "params.yaml").write_text(text.replace("dual_step: 0.5 ", "dual_step: 0.25 "))
    (moved,) = {
        round(
            as_json("step", {"controller": "lagrangian", **BOUNDS, "tokens": 6000, "accuracy": accuracy})["system1"], 9
        )
        for accuracy in (0.70, 0.60)
    }
    assert moved == pytest.approx(1.0 / (1.0 + math.exp(0.25)))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({**LAGRANGIAN, "eta": 4}, "--eta is not read by the lagrangian controller"),
        ({**PAPER, "margin": 0.01}, "--margin is not read by the paper controller"),
        ({**LAGRANGIAN, "margin": 0}, "--margin 0 is not above 0 and below 1"),
        ({**LAGRANGIAN, "dual-step": "nan"}, "--dual-step nan is not above 0"),
        ({**LAGRANGIAN, "dead-zone": -1}, "--dead-zone -1 is not at least 0"),
        ({**LAGRANGIAN, "loss-se": "inf"}, "--loss-se inf is not between 0 and 1"),
        ({**LAGRANGIAN, "floor": 0}, "--floor 0 is not above 0 and below 0.5"),
    ],
)
def test_settings_of_another_controller_or_beyond_their_bounds(
    nowhere: Path, options: dict[str, Any], part: str
) -> None:
    answer = call("step", {**options, **POINT})
    assert answer.exit_code == 2
    assert part in answer.stderr


def test_a_simulation_ends_with_a_drawing_of_the_width_of_the_terminal(nowhere: Path) -> None:
    for width in (60, 80, 120):
        words = [word for name, value in {**LAGRANGIAN, "updates": 200}.items() for word in (f"--{name}", str(value))]
        answer = CliRunner().invoke(main, ["ratio", "simulate", *words], env={"COLUMNS": str(width)})
        assert width < 80 or "multiplier" in answer.stdout.splitlines()[0]
        drawing = answer.stdout.split("System-1 share after each update\n")[1].splitlines()
        assert max(map(len, drawing)) <= width
        assert [line[:9].strip() for line in drawing] == [
            *("1.0 |", "|", "|", "|", "0.5 |", "|", "|", "0.0 |"),
            *("tokens", "accuracy", "Each colu"),
        ]
