"""Panels: small matplotlib figures as SVG that follow the colours and the font of the page they stand in.

Matplotlib knows no CSS variables, so everything is drawn in sentinel colours that are replaced in the text of the SVG.
Equal data give equal bytes: no date, and ids that are hashed with a fixed salt. Nothing is read or written.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 4.6, 3.4  # inches of a panel; it shrinks to a phone with its text still readable
POINTS = 72
SERIES = ("base", "candidate", "run-1", "run-2", "run-3", "run-4")  # CSS variables of page.css
MARKERS = ("o", "s", "D", "^", "v", "P")
SYMBOLS = ("●", "■", "◆", "▲", "▼", "✚")  # the same shapes, for legends
COLOURS = {name: f"#01{number:02x}01" for number, name in enumerate(("ink", "muted", "line", "surface", *SERIES))}
NAMES = {colour: name for name, colour in COLOURS.items()}
STYLE = {
    "svg.fonttype": "none",  # text stays text: smaller, selectable, in the font of the page
    "svg.hashsalt": "tldr",
    "text.parse_math": False,  # a name of a task may hold a dollar sign
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["muted"],
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.grid": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
}


@dataclass(frozen=True)
class Mark:
    """One entry of a legend: a symbol in the colour of a CSS variable."""

    symbol: str
    colour: str
    text: str


@dataclass(frozen=True)
class Panel:
    """One plot: its heading, and an SVG with a title and a description for people who cannot see it."""

    heading: str
    svg: str


@dataclass(frozen=True)
class Chart:
    """Panels that belong together, their common legend, and sentences that say what is shown and of how many."""

    key: str
    legend: Sequence[Mark]
    panels: Sequence[Panel]
    caption: Sequence[str]


def series(number: int) -> dict[str, Any]:
    """Colour and marker of run `number` (0 the baseline, 1 the candidate); beyond six both come again."""
    return {"color": COLOURS[SERIES[number % len(SERIES)]], "marker": MARKERS[number % len(MARKERS)]}


def series_mark(number: int, text: str) -> Mark:
    return Mark(SYMBOLS[number % len(SYMBOLS)], SERIES[number % len(SERIES)], text)


@contextmanager
def drawing() -> Iterator[tuple[Any, Any]]:
    """An empty matplotlib figure and its axes, in our style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The browser draws the text, in its own fonts: what matplotlib's font lacks only makes a width a guess.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        yield figure, axes


def panel(figure: Any, key: str, heading: str, description: str) -> Panel:
    """The finished figure; `key` is unique on the page. To be called inside `drawing`."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Panel(heading, _embedded(stream.getvalue(), key, heading, description))


def _embedded(svg: str, key: str, heading: str, description: str) -> str:
    """The <svg> element alone, its ids prefixed with `key`, its colours and font taken from the page."""
    body = svg[svg.index("<svg") :]
    # A <style> in an SVG holds for the whole page.
    body = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{key}-", body).replace("xlink:href=", "href=")
    body = re.sub(r"font: (?:(\S+) )?([\d.]+px) [^;\"]*", r"font-size: \2", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    body = re.sub(r"\b(fill|stroke): (#\w{6})", lambda found: f"{found[1]}: var(--{NAMES[found[2]]})", body)
    start = (
        f'<svg class="plot" role="img" aria-labelledby="{key}-title {key}-desc" '
        f'viewBox="0 0 {WIDTH * POINTS:g} {HEIGHT * POINTS:g}">'
        f'<title id="{key}-title">{html.escape(heading)}</title><desc id="{key}-desc">{html.escape(description)}</desc>'
    )
    return re.sub(r"^<svg[^>]*>", lambda _: start, body)
