"""`tldr compare`: any two sets of results, question by question, or a table of published means.

Reads what `stages.data.evaluations` and `stages.data.cell_table` read, and evaluate.* and seed of params.yaml; prints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from stages.cli._comparison import Options, Request, compare_files
from stages.cli._project import CANDIDATE

OPTIONS = (
    click.option("--margin", type=float, help="Accuracy loss that does no harm, as a share  [evaluate.margin]."),
    click.option("--alpha", type=float, help="One-sided level of the verdict  [evaluate.alpha]."),
    click.option("--confidence", type=float, help="Two-sided level of the intervals  [evaluate.confidence]."),
    click.option("--resamples", type=int, help="Bootstrap draws  [evaluate.resamples]."),
    click.option("--seed", type=int, help="Seed of the draws  [seed]."),
)


def options(function: Any) -> Any:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="[BASELINE] [CANDIDATE]")
@click.option("--candidate", "more", multiple=True, help="A further training run of the candidate; repeat it.")
@click.option("--rev", help="Take the baseline from this git revision.")
@click.option("--allow-mismatch", is_flag=True, help="Compare in spite of different conditions, and say so.")
@click.option("--flips", is_flag=True, help="List the questions whose correctness changed.")
@click.option("--baseline-label", help="Last label of the baseline groups of a published table.")
@click.option(
    "--verifier",
    type=click.Choice(["math", "exact"]),
    default="math",
    show_default=True,
    help="How answers without verdicts are graded.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@options
def command(runs: tuple[str, ...], more: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Compare two models question by question: accuracy, tokens, intervals and a verdict.

    BASELINE and CANDIDATE are question tables (results/questions/*.csv), response records (.parquet or their folder),
    lm-eval samples (a folder or samples_*.jsonl), JSON Lines with responses (.jsonl, .jsonl.gz), or REVISION:PATH of a file
    that git tracks. One table of published means (CSV: benchmark, accuracy, tokens) is compared group by group.

    With --rev, CANDIDATE is results/questions/candidate.csv unless given, and the baseline is that file in the revision.
    """
    form = _form(as_json, given.pop("as_markdown"), given.pop("as_csv"))
    flips, label = given.pop("flips"), given.pop("baseline_label")
    if _is_published(runs):
        _show_published(runs, label, form)
        return
    if label is not None:
        raise click.UsageError("--baseline-label is for a table of published means.")
    request = _request(runs, more, given)
    report = compare_files(request, flips=flips)
    _show(report, form)


def _form(as_json: bool, as_markdown: bool, as_csv: bool) -> str:
    chosen = [name for name, wanted in (("json", as_json), ("markdown", as_markdown), ("csv", as_csv)) if wanted]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other.")
    return chosen[0] if chosen else "terminal"


def _request(runs: Sequence[str], more: Sequence[str], given: dict[str, Any]) -> Request:
    """Which file is the baseline and which are candidates; a usage error where that is not clear."""
    rev = given.pop("rev")
    allow_mismatch, verifier = given.pop("allow_mismatch"), given.pop("verifier")
    if len(runs) > 2:
        raise click.UsageError("Give a baseline and a candidate; further training runs are --candidate options.")
    if rev is None:
        if len(runs) + len(more) < 2:
            raise click.UsageError(
                "Give a baseline and a candidate, or --rev for the baseline; see tldr compare --help."
            )
        baseline, candidates = runs[0] if runs else more[0], [*runs[1:], *(more if runs else more[1:])]
    elif len(runs) == 2:
        baseline, candidates = runs[0], [runs[1], *more]
    else:
        candidates = [*runs, *more] or [CANDIDATE]
        baseline = candidates[0]
    return Request(baseline, tuple(candidates), rev, allow_mismatch, verifier, Options(**given))


def _is_published(runs: Sequence[str]) -> bool:
    from stages.data.cell_table import is_cell_table, split_spec

    return bool(runs) and any(_is_file(spec) and is_cell_table(split_spec(spec)[0]) for spec in runs)


def _is_file(spec: str) -> bool:
    from stages.data.cell_table import split_spec

    return split_spec(spec)[0].is_file()


def _show_published(runs: Sequence[str], label: str | None, form: str) -> None:
    from stages.cli._cells import cells_csv, cells_markdown, compare_cell_files, show_cells

    report = compare_cell_files(list(runs), label)
    if form == "json":
        _print_json(report)
    elif form == "terminal":
        from rich.console import Console

        show_cells(Console(), report)
    else:
        click.echo((cells_markdown if form == "markdown" else cells_csv)(report), nl=False)


def _show(report: dict[str, Any], form: str) -> None:
    if form == "json":
        _print_json(report)
        return
    if form == "csv":
        from stages.evidence.flat import csv_text

        click.echo(csv_text(report), nl=False)
        return
    from stages.evidence.report import markdown, render

    if form == "markdown":
        click.echo(markdown(report, details=True), nl=False)
    else:
        from rich.console import Console

        render(report, console=Console(), details=True)


def _print_json(report: dict[str, Any]) -> None:
    click.echo(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
