"""`tldr ratio step | simulate`: the three controllers by hand.

Reads params.yaml only for the settings of the robust and the lagrangian controller that are not given; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from stages._errors import UserError
from stages.cli._ratio_settings import NAMES, as_arguments, settings_for

if TYPE_CHECKING:
    from stages.core.ratio import RatioStep

ACCURACIES = ("short_accuracy", "long_accuracy")
P = ParamSpec("P")
R = TypeVar("R")


@click.group("ratio")
def command() -> None:
    """Compute the System-1 / System-2 ratio: one step, or a simulation."""


def controller_options(function: Callable[P, R]) -> Callable[P, R]:
    """The options that both commands share."""
    options = [
        click.option(
            "--controller", type=click.Choice(["robust", "paper", "lagrangian"]), default="robust", show_default=True
        ),
        click.option("--short-tokens", type=float, required=True, help="Mean tokens of the short reference."),
        click.option("--long-tokens", type=float, required=True, help="Mean tokens of the original model."),
        click.option("--short-accuracy", type=float, required=True, help="Accuracy of the short reference (0 to 1)."),
        click.option("--long-accuracy", type=float, required=True, help="Accuracy of the original model (0 to 1)."),
        click.option("--weight", type=float, default=0.5, show_default=True, help="System-1 share before the step."),
        click.option("--eta", type=float, help="Step size. [default: 4 for paper, params.yaml for robust]"),
        click.option("--smoothing", type=float, help="Share mixed with the uniform ratio. [default: as for --eta]"),
        click.option("--floor", type=float, help="Minimum share of each source. [default: 0 for paper]"),
        click.option("--margin", type=float, help="Accuracy that may be lost (lagrangian). [default: params.yaml]"),
        click.option(
            "--dual-step", type=float, help="Largest step of the log-odds (lagrangian). [default: params.yaml]"
        ),
        click.option("--dead-zone", type=float, help="SEs that move nothing (lagrangian). [default: params.yaml]"),
        click.option("--loss-se", type=float, help="Standard error of the accuracy lost (lagrangian). [default: 0]"),
        click.option("--json", "as_json", is_flag=True, help="Print JSON at full precision."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command.command("step")
@controller_options
@click.option("--tokens", type=float, required=True, help="Mean control tokens of the current model.")
@click.option("--accuracy", type=float, required=True, help="Control accuracy of the current model (0 to 1).")
def step_command(tokens: float, accuracy: float, as_json: bool, **options: Any) -> None:
    """Compute the ratio after one control evaluation.

    \b
    tldr ratio step --controller paper --short-tokens 1120.94 --long-tokens 7379.61 \\
        --short-accuracy 0.29 --long-accuracy 0.76 --tokens 6000 --accuracy 0.74 --weight 0.5 --json
    """
    # Nothing came before a single step, so nothing is there to be smoothed.
    smoothing = None if options["controller"] == "lagrangian" else 0.0
    result = trajectory([tokens], [accuracy], benefit_smoothing=smoothing, **options)[0]
    if as_json:
        click.echo(json.dumps(as_row(result)))
        return
    click.echo(f"System-1 {result.weights[0]:.4f}  System-2 {result.weights[1]:.4f}")
    click.echo(f"benefit of System-1 {result.benefit1:.4f}  benefit of System-2 {result.benefit2:.4f}")


@command.command("simulate")
@controller_options
@click.option("--benefit-smoothing", type=float, help="Weight of the former benefits (robust). [default: as for --eta]")
@click.option("--updates", type=click.IntRange(1, 10000), default=10, show_default=True, help="Number of updates.")
@click.option("--final-tokens", type=float, help="Tokens at the last update. [default: --short-tokens]")
@click.option("--final-accuracy", type=float, help="Accuracy at the last update. [default: --short-accuracy]")
def simulate_command(
    updates: int, final_tokens: float | None, final_accuracy: float | None, as_json: bool, **options: Any
) -> None:
    """Draw the ratio while tokens and accuracy go in a straight line from the original model to a final point.

    The controller does not act on the model here: the measurements are given. A table and a drawing, or --json.
    """
    end_tokens = options["short_tokens"] if final_tokens is None else final_tokens
    end_accuracy = options["short_accuracy"] if final_accuracy is None else final_accuracy
    tokens = straight_line(options["long_tokens"], end_tokens, updates)
    accuracy = straight_line(options["long_accuracy"], end_accuracy, updates)
    results = trajectory(tokens, accuracy, **options)
    rows = [
        {"update": number, "tokens": tokens[number - 1], "accuracy": accuracy[number - 1], **as_row(result)}
        for number, result in enumerate(results, start=1)
    ]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        show(rows)


def straight_line(start: float, end: float, num_updates: int) -> list[float]:
    """Values after each update; the last is `end`."""
    shares = [number / num_updates for number in range(1, num_updates + 1)]
    return [start * (1.0 - share) + end * share for share in shares]


def trajectory(
    tokens: list[float], accuracy: list[float], *, controller: str, weight: float, **options: Any
) -> list[RatioStep]:
    """One controller step per pair of `tokens` and `accuracy`; UserError for values that make no ratio."""
    from stages.core.ratio import Bounds, simulate

    settings = settings_for(controller, {name: options[name] for name in NAMES})
    shares = {"weight": weight, "accuracy": accuracy[-1]} | {name: options[name] for name in ACCURACIES}
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise UserError(f"--{name.replace('_', '-')} {share:g} is not between 0 and 1; give a fraction.")
    try:
        bounds = Bounds(**{name: options[name] for name in ("short_tokens", "long_tokens", *ACCURACIES)})
        return simulate(controller, bounds, (weight, 1.0 - weight), tokens, accuracy, **as_arguments(settings))
    except ValueError as error:
        raise UserError(f"These values give no ratio: {error}; correct them and run again.") from None


def as_row(result: RatioStep) -> dict[str, float]:
    system1, system2 = result.weights
    row = {"system1": system1, "system2": system2, "benefit1": result.benefit1, "benefit2": result.benefit2}
    return row if result.multiplier is None else row | {"multiplier": result.multiplier}


def show(rows: list[dict[str, Any]]) -> None:
    """A table, and under it the drawing, as wide as the terminal; without colours and in ASCII where it has no others."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from stages.cli._trajectory import draw

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    digits = {"update": 0, "tokens": 1, "accuracy": 3}
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.{digits.get(name, 4)}f}" for name, value in row.items()))
    console = Console(highlight=False)
    console.print(table)
    for line in ["", *draw(rows, console.width, console.options.ascii_only)]:
        console.print(line, markup=False, no_wrap=True, crop=False, overflow="ignore")
