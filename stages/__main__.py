"""The command `tldr`, also `python -m stages`: imports click only and loads a command when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click

from stages.cli._exits import ExitCodes

# Module of each command and its line in `tldr --help`; the module's `command` is a click command.
COMMANDS = {
    "repro": ("stages.cli.repro", "Run the stages that are not up to date, then print the report."),
    "report": ("stages.cli.report", "Compare the compressed model with its base, with intervals and a verdict."),
    "compare": ("stages.cli.compare", "Compare any two sets of results question by question, or a published table."),
    "grade": ("stages.cli.grade", "Grade answers with our verifier, and compare with verdicts that a file carries."),
    "check": ("stages.cli.check", "Fail on a regression against a baseline: the gate for continuous integration."),
    "status": ("stages.cli.status", "Say which stages are up to date, and what partial work there is."),
    "gc": ("stages.cli.gc", "List the partial work, and remove what no run goes on from."),
    "run": ("stages.cli.run", "Run one stage as dvc.yaml does: here, or in its container."),
    "ratio": ("stages.cli.ratio", "Compute the System-1 / System-2 ratio: one step, or a simulation."),
    "ablate": ("stages.cli.ablate", "Compare ways to move the ratio, at equal compute, on the tiny task."),
    "tiny": ("stages.cli.tiny", "Rebuild the shipped small reasoner, or print its oracle frontier."),
    "fetch": ("stages.cli.fetch", "Download what params.yaml pins from the Hugging Face hub."),
    "card": ("stages.cli.card", "Write a model card with the measured results and their intervals."),
    "plan": ("stages.cli.plan", "Print what a profile needs: images, downloads, GPUs and memory, tokens, GPU-hours."),
    "profile": ("stages.cli.profile", "Show the profiles, overlays over params.yaml, or write one into it."),
    "images": ("stages.cli.images", "Lock, build, pull and verify the container images that the stages run in."),
    "doctor": ("stages.cli.doctor", "Check versions, repository, parameters, model, data and disk."),
}


class LazyGroup(click.Group):
    """Knows its commands by name; every error of a command ends in `ExitCodes`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        with ExitCodes():
            return super().invoke(ctx)


def print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"tldr {version('tldr-reweight')}")
    except PackageNotFoundError:
        click.echo("tldr from a checkout that is not installed; run `pip install -e .`")
    ctx.exit()


VERSION = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@VERSION
def main() -> None:
    """TLDR: make a reasoning model think shorter by re-weighting short and long thoughts (arXiv 2506.02678).

    The pipeline: sample, label-by-length, ratio-schedule, train, evaluate. Every number is in params.yaml.
    Start with `tldr doctor`, then `tldr repro`.
    """


if __name__ == "__main__":
    main(prog_name="tldr")
