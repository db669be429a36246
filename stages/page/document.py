"""The page as one string of HTML that loads nothing: text, style and figures are inside. Nothing is written.

Reads page.html.j2 and page.css beside this file. Everything that is filled in is escaped, but the SVG of `canvas` and the
JSON, which escape themselves; a policy in the head of the page forbids scripts and loads besides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.evidence.report import headline, notes
from stages.evidence.tables import VERDICT, lengths, overview, rates, reductions
from stages.page.canvas import Chart
from stages.page.limits import Limit
from stages.page.traces import HEAD, MAX_SHOWN, TAIL, FlipSection, shortened

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Origins:
    """Where the results come from: facts as (name, value), a table of the stages, and under a heading each the tables of what
    differs from the profile and from the git revision. Rows of a table have the same keys.
    """

    facts: Sequence[tuple[str, str]]
    stages: Sequence[Mapping[str, str]]
    changes: Sequence[tuple[str, Sequence[Mapping[str, str]]]]


@dataclass(frozen=True)
class Content:
    """What the page shows. A chart that cannot be drawn is a sentence that says why; `runs` are rows of a table."""

    report: Mapping[str, Any]
    charts: Mapping[str, Chart | str]
    runs: Sequence[Mapping[str, str]]
    flips: FlipSection
    limits: Sequence[Limit]
    origins: Origins


def render_page(content: Content) -> str:
    """The whole document."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shortened"] = shortened
    template = environment.from_string((FOLDER / "page.html.j2").read_text(encoding="utf-8"))
    report = content.report
    text: str = template.render(
        content=content,
        report=report,
        headline=headline(report),
        notes=notes(report),
        aggregates=[note for note in notes(report, details=True) if note not in notes(report)],
        overview=overview(report),
        verdict_first=_verdict_first,
        details=[reductions(report), lengths(report), rates(report)],
        verdict_column=VERDICT,
        tiles=_tiles(report),
        trace_limits={"flips": MAX_SHOWN, "characters": HEAD + TAIL},
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        svg=Markup,
        data=Markup(_script_json(report)),
    )
    return text


def _verdict_first(columns: Sequence[str]) -> list[str]:
    """The verdict beside the name of the row: on a phone the last column is out of sight."""
    return [columns[0], VERDICT, *(name for name in columns[1:] if name != VERDICT)]


def _script_json(report: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in: every "<" is written as an escape."""
    return json.dumps(report, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _tiles(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, figure, interval or comment)."""
    reduction, difference = report["token_reduction"], report["accuracy_difference"]
    base, candidate = report["baseline"], report["candidate"]
    return [
        ("Fewer tokens", f"{100 * reduction['micro']:.1f} %", _interval(reduction["ci"], 1, "%", "")),
        ("Accuracy", f"{100 * difference['value']:+.2f} points", _interval(difference["ci"], 2, "points", "+")),
        ("Mean tokens per answer", f"{candidate['mean_tokens']:,.1f}", f"{base['mean_tokens']:,.1f} before"),
        ("Questions", f"{base['num_questions']:,}", f"{base['num_samples']:,} answers before"),
    ]


def _interval(bounds: Sequence[float] | None, digits: int, unit: str, sign: str) -> str:
    if bounds is None:
        return "no interval: too few questions"
    lower, upper = (f"{100 * bound:{sign}.{digits}f}" for bound in bounds)
    return f"{lower} to {upper} {unit}"
