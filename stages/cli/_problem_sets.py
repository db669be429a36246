"""What `tldr fetch` says of the problem sets that it makes: how many problems each keeps, and why the others are missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from stages._params import Params
from stages.data.sources import Sources, wanted_sets

MAX_NAMED = 5


def make_and_show(root: Path, sources: Sources, params: Params, *, as_json: bool) -> list[dict[str, Any]]:
    """Make the sets that params.yaml names, if they are not there; a row {path, outcome, role, source, rows, ...} each."""
    from stages.data.problem_sets import made_sets, make_sets

    if not wanted_sets(sources, params):
        return []
    found = made_sets(root, sources, params)
    outcome = "is there" if found is not None else "made"
    if found is None:
        click.echo("Problem sets: reading files, checking gold answers, comparing the sets.", err=True)
        found = make_sets(root, sources, params)
    for path, figures in found.items():
        for line in said(path, outcome, figures):
            click.echo(line, err=as_json)
    return [{"path": path, "outcome": outcome, **figures} for path, figures in found.items()]


def said(path: str, outcome: str, figures: Mapping[str, Any]) -> list[str]:
    """A line for the set, and one for every reason why a row is missing or cannot be graded."""
    from stages.data.problem_sets import removed_by

    lines = [f"data.{figures['role']}: {path} {outcome}, {figures['kept']:,} of {figures['rows']:,} problems"]
    if figures["no_answer"]:
        lines.append(f"  {len(figures['no_answer'])} solutions without a final answer: {_named(figures['no_answer'])}")
    if figures["not_read"]:
        kept = ", kept and compared as written" if figures["role"] == "test" else ""
        named = _named(figures["not_read"])
        lines.append(f"  {len(figures['not_read'])} gold answers that math-verify cannot read{kept}: {named}")
    lines += [f"  {number} removed, the same as in {role}" for role, number in removed_by(figures).items()]
    return lines


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - MAX_NAMED} more (report.json)" if len(ids) > MAX_NAMED else ""
    return f"{', '.join(ids[:MAX_NAMED])}{more}"
