"""`tldr tiny build | frontier`: rebuild the shipped small reasoner, or print its oracle frontier."""

from __future__ import annotations

from pathlib import Path

import click

from stages._errors import UserError
from stages._params import load_params
from stages.cli._project import project_root


@click.group("tiny")
def command() -> None:
    """Rebuild the shipped small reasoner, or print its oracle frontier."""


@command.command("build")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that gets models/tiny and data/tiny; default: the checkout.",
)
@click.option("--seed", type=int, help="Seed of the recipe; default: tiny.seed of params.yaml.")
@click.option("--force", is_flag=True, help="Replace a model or problem sets that exist.")
def build_command(output: Path | None, seed: int | None, force: bool) -> None:
    """Rebuild the small reasoner and its problem sets from a seed (tiny block of params.yaml)."""
    root = project_root()
    recipe = load_params(root).tiny
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    folder = root if output is None else output
    model_folder, data_folder = folder / "models" / "tiny", folder / "data" / "tiny"
    existing = [path for path in (model_folder, data_folder) if path.is_dir() and any(path.iterdir())]
    if existing and not force:
        names = " and ".join(str(path) for path in existing)
        raise UserError(f"{names} would be replaced; add --force, or --output FOLDER to build elsewhere.")
    from stages.tiny.build import build

    build(recipe, model_folder, data_folder)
    click.echo(f"Wrote {model_folder} and {data_folder}.", err=True)


@command.command("frontier")
@click.option("--chains", type=click.IntRange(min=1), default=60000, show_default=True, help="Chains per length.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the simulation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def frontier_command(chains: int, seed: int, as_json: bool) -> None:
    """Simulate checking policies on the tiny task: accuracy, tokens, and the oracle frontier."""
    from rich.console import Console

    from stages.tiny.frontier import print_frontier

    print_frontier(chains, seed, as_json, Console())
