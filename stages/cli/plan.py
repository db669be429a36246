"""`tldr plan`: what a profile needs before any GPU is spent on it.

Reads params.yaml, profiles/, problem files, tasks/, data/sources.yaml, containers/images.yaml and results/; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages._params import Params, load_params, read_yaml
from stages.cli._project import project_root
from stages.cli.profile import complete_name

if TYPE_CHECKING:
    from stages.plan.stages_of import Plan, StagePlan

GPU_NAMES = ("a100", "h100", "h200", "l40s")
DOES_NOT_FIT = 1


@click.command("plan")
@click.option(
    "--profile", metavar="NAME", shell_complete=complete_name, help="Plan with the values of profiles/NAME.yaml."
)
@click.option("overrides", "-S", metavar="KEY=VALUE", multiple=True, help="Plan with another value of params.yaml.")
@click.option(
    "--gpu", "gpu_name", type=click.Choice(GPU_NAMES), default="h100", show_default=True, help="GPU to plan for."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, profile: str | None, overrides: tuple[str, ...], gpu_name: str, as_json: bool) -> None:
    """Print what the stages will need: images, downloads, GPUs and memory, tokens, GPU-hours.

    Nothing is started and nothing downloaded. Memory and hours are estimates by the formulas of docs/plan.md, from what the
    GPU's maker publishes. Exit code 1 if a stage does not fit into the GPU's memory; the parameter to change is named.
    """
    from stages.cli._overrides import with_overrides
    from stages.cli.profile import overlay_pairs
    from stages.data.pins import SOURCES
    from stages.data.sources import read_sources
    from stages.plan.speed import GPUS
    from stages.plan.stages_of import make_plan

    root = project_root()
    load_params(root)
    document = read_yaml(root / "params.yaml")
    pairs = [*(overlay_pairs(root, profile) if profile is not None else ()), *overrides]
    params = with_overrides(document, pairs)
    sources = read_sources(root) if (root / SOURCES).is_file() else None
    plan = make_plan(root, params, sources, GPUS[gpu_name] if params.container.device == "cuda" else None)
    again = {stage: rerun(root, stage, [pair.partition("=")[0] for pair in pairs]) for stage in _stages(root)}
    images = {row.name: image_of(root, params, row.name) for row in plan.stages}
    if as_json:
        click.echo(json.dumps(plan.as_dict() | {"images": images, "changed": again}, indent=2, ensure_ascii=False))
    else:
        show(plan, params, images, again)
    if not plan.fits:
        ctx.exit(DOES_NOT_FIT)


def _stages(root: Path) -> dict[str, Any]:
    stages: dict[str, Any] = read_yaml(root / "dvc.yaml")["stages"]
    return stages


def rerun(root: Path, stage: str, changed: Sequence[str]) -> list[str]:
    """Those of the `changed` keys that the stage of dvc.yaml depends on, by name."""
    body = _stages(root)[stage]
    keys = [key for key in body.get("do", body)["params"] if isinstance(key, str)]
    return [key for key in changed if any(_covers(known, key) or _covers(key, known) for known in keys)]


def _covers(above: str, below: str) -> bool:
    return below == above or below.startswith(f"{above}.")


def image_of(root: Path, params: Params, stage: str) -> str:
    """The image that containers/images.yaml runs the stage in; `host` without a container."""
    if params.container.engine == "host":
        return "host"
    device = "cpu" if stage == "label-by-length" else params.container.device
    named = read_yaml(root / "containers" / "images.yaml")["run_in"][params.container.engine][device]
    return str(named["reference"] if isinstance(named, dict) else named)


def show(plan: Plan, params: Params, images: dict[str, str], again: dict[str, list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    where = f"{plan.gpu.name}, {plan.gpu.gib:.0f} GiB" if plan.gpu else "CPU: memory and hours are not planned"
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        title=f"Profile {plan.profile} ({where})",
        title_justify="left",
    )
    for column in ("stage", "image", "GPUs", "GiB per GPU", "of it", "tokens written", "tokens trained", "GPU-hours"):
        text = column in ("stage", "image", "of it")
        table.add_column(column, justify="left" if text else "right", overflow="fold", no_wrap=column != "of it")
    for row in plan.stages:
        table.add_row(*_cells(row, images[row.name]))
    console = Console()
    console.print(table)
    for line in said(plan, params, again):
        console.print(line, highlight=False, soft_wrap=True)


def _cells(row: StagePlan, image: str) -> list[str]:
    from stages.plan.stages_of import named_gib

    parts = (
        ""
        if row.need is None
        else ", ".join(f"{name} {gib:.1f}" for name, gib in named_gib(row.need).items() if gib >= 0.05)
    )
    need = "-" if row.need is None else f"{row.need.total:.0f}"
    hours = "-" if row.gpu_hours is None else f"{row.gpu_hours:,.1f}"
    return [
        row.name,
        image,
        str(row.gpus) if row.gpus else "-",
        need,
        parts,
        _millions(row.generated),
        _millions(row.trained),
        hours,
    ]


def _millions(tokens: float) -> str:
    return "-" if tokens == 0 else f"{tokens / 1e6:,.1f} M"


def said(plan: Plan, params: Params, again: dict[str, list[str]]) -> list[str]:
    """What the table does not hold: totals, assumptions, and what does not fit."""
    load = plan.load
    lengths = [
        f"{name} {answers.number:,} answers of {answers.mean_tokens:,.0f} tokens{'' if answers.measured else ' (assumed)'}"
        for name, answers in (
            *(("System-1", load.system1), ("System-2", load.system2), ("control set", load.control)),
            ("test", load.test),
        )
    ]
    lines = ["", f"Answers: {'; '.join(lengths)}."]
    if plan.gpu is not None:
        lines.append(
            f"All together about {plan.gpu_hours:,.0f} GPU-hours; halve or double it: nothing of it was measured on a GPU."
        )
    if plan.control_share is not None:
        lines.append(_control(plan))
    sizes = "; ".join(f"{path} {gigabytes:.1f} GB" for path, gigabytes in plan.downloads.items()) or "no model"
    lines.append(f"To download: {sizes}. Disk: about {plan.disk:,.1f} GB.")
    changed = sorted({key for keys in again.values() for key in keys})
    if changed:
        stages = ", ".join(stage for stage, keys in again.items() if keys)
        lines.append(f"{len(changed)} values differ from params.yaml; they concern {stages}.")
    lines += [f"{row.name} does not fit: {row.advice}." for row in plan.stages if row.advice is not None]
    return lines


def _control(plan: Plan) -> str:
    """What the control set costs, and which parameters set it."""
    load, share, steering = plan.load, plan.control_share or 0.0, plan.steering_share or 0.0
    updates = f"{load.num_updates} evaluations of {load.each_control.number:,} answers"
    if not load.whole_control.number:
        return (
            f"Answering the control set takes about {100 * share:.0f} % of train ({updates}); train.update_every, "
            "ratio.control_questions and ratio.control_samples set it."
        )
    return (
        f"Steering takes about {100 * steering:.0f} % of train ({updates}), and the choice of the checkpoint at most "
        f"{100 * (share - steering):.0f} % (up to {load.whole_control.number:,} answers); train.update_every, "
        "ratio.control_questions, ratio.control_samples and select.candidates set it."
    )
