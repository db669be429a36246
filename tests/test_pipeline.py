"""dvc.yaml tells the truth: stages, dependencies and parameters are those of the code."""

from __future__ import annotations

import importlib
import re

import pytest

from stages._params import load_params, read_yaml, used
from stages.cli._project import STAGES
from tests.imports import closure
from tests.paths import ROOT

PIPELINE = read_yaml(ROOT / "dvc.yaml")["stages"]
BODIES = {name: body.get("do", body) for name, body in PIPELINE.items()}
# What a stage runs by name, not by an import: code that files name, processes that it launches; with the folders it reads.
CALLED = {"evaluate": [ROOT / "tasks" / "scoring.py"], "train": [ROOT / "stages" / "training" / "worker.py"]}
READ = {"evaluate": ["data/benchmarks", "tasks"], "train": ["stages/training/accelerate"]}
PUBLIC = {path.stem for path in (ROOT / "stages").glob("*.py") if not path.stem.startswith("_")}


def module(stage: str) -> str:
    return stage.replace("-", "_")


def test_a_public_module_is_a_stage_and_a_stage_is_a_public_module():
    assert {module(stage) for stage in PIPELINE} == PUBLIC
    assert {stage.partition("@")[0] for stage in STAGES} == set(PIPELINE)


@pytest.mark.parametrize("stage", PIPELINE)
def test_dependencies_are_the_files_that_the_code_imports(stage):
    deps, called = BODIES[stage]["deps"], CALLED.get(stage, [])
    listed = [dep for dep in deps if dep.startswith(("stages/", "containers/")) and dep.endswith(".py")]
    run = closure(ROOT, ROOT / "stages" / f"{module(stage)}.py", *called)
    assert listed == [path for path in run if not path.startswith("tasks/")]
    assert [dep for dep in deps if dep in ("data/benchmarks", "tasks", "stages/training/accelerate")] == READ.get(
        stage, []
    )


@pytest.mark.parametrize("stage", PIPELINE)
def test_parameters_are_the_keys_that_the_code_reads(stage):
    keys = [key for key in BODIES[stage]["params"] if isinstance(key, str)]
    assert keys == list(importlib.import_module(f"stages.{module(stage)}").KEYS)
    assert used(load_params(ROOT), tuple(keys))


@pytest.mark.parametrize("stage", PIPELINE)
def test_every_stage_names_its_image(stage):
    """label-by-length needs no GPU whatever the device; the others run in the image of container.device."""
    device = "cpu" if stage == "label-by-length" else "${container.device}"
    (named,) = [key for key in BODIES[stage]["params"] if isinstance(key, dict)]
    assert named == {"containers/images.yaml": [f"run_in.${{container.engine}}.{device}"]}


@pytest.mark.parametrize("stage", PIPELINE)
def test_every_stage_is_described_and_run_as_a_module(stage):
    """Never the console script, never a file path: both can load another checkout's code."""
    assert len(BODIES[stage]["desc"]) > 20
    assert re.fullmatch(r"python -m stages run " + stage + r"(@\$\{key\})?", BODIES[stage]["cmd"])


def test_every_parameter_is_explained():
    """Each key of params.yaml has a comment on its line, or is named by what it holds."""
    plain = {"path", "device", "system1", "system2", "control", "test"}
    block, silent = "", []
    for line in (ROOT / "params.yaml").read_text().splitlines():
        match = re.match(r"( *)([a-z0-9_]+):", line)
        if match and not match[1]:
            block = match[2]
        if match and "#" not in line and match[2] != block and match[2] not in plain:
            silent.append(f"{block}.{match[2]}")
    obvious = {
        *("decode.temperature", "decode.top_p", "label.histogram_bins", "ratio.short_bound", "train.lr"),
        *("train.warmup_steps", "train.weight_decay", "train.max_grad_norm"),
    }
    assert [key for key in silent if key not in obvious and not key.startswith("tiny.")] == []


def test_the_project_depends_on_no_stage_in_the_core():
    """core: standard library only; evidence: core, numpy and scipy; nothing below imports the command line."""
    import ast

    allowed = {"core": {"stages.core"}, "evidence": {"stages.core", "stages.evidence"}}
    for room, own in allowed.items():
        for path in (ROOT / "stages" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("stages", "containers")):
                    assert any(node.module.startswith(prefix) for prefix in own), (path, node.module)
