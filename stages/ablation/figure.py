"""docs/ablation.svg: accuracy against mean tokens, one point per arm with intervals over seeds. Pure; SVG text out.

Drawn as the panels of the page are, in the light colours of page.css: an image in a README knows no CSS of its surroundings.
Equal data give equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.ablation.statistics import Estimate, TestSeeds, estimate
from stages.page.canvas import COLOURS, MARKERS, drawing
from stages.tiny.policies import Policy

SIZE = (9.6, 4.4)  # inches
BASE, KINDS = "base", {"static": "candidate", "scheduled": "run-1", "dynamic": "run-2"}  # colours of page.css
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
PAGE_CSS = Path(__file__).resolve().parents[1] / "page" / "page.css"
VARIABLE = re.compile(r"--([\w-]+): (#[0-9a-f]{6})")
Point = tuple[Estimate, Estimate]  # tokens, accuracy as a share


def figure(
    tested: Mapping[str, TestSeeds], kinds: Mapping[str, str], frontier: Sequence[Policy], confidence: float
) -> str:
    """The SVG. `kinds` gives each arm of `tested` its kind, a key of KINDS; `frontier` fewest tokens first.

    Left the base model, the frontier and all arms; right the arms alone, larger.
    """
    points = {arm: _point(runs, ("tokens", "accuracy"), confidence) for arm, runs in tested.items()}
    by_seed = {seed: run for runs in tested.values() for seed, run in runs.items()}
    base = _point(by_seed, ("base_tokens", "base_accuracy"), confidence)
    with drawing() as (canvas, axes):
        axes.remove()
        canvas.set_size_inches(*SIZE)
        whole, close = canvas.subplots(1, 2)
        for panel in (whole, close):
            panel.patch.set_alpha(0)
            panel.set_xlabel("mean tokens per answer")
            _draw_arms(panel, points, kinds)
        whole.set_ylabel("accuracy, %")
        close.set_title("The arms alone", fontsize=12, loc="left")
        limits = close.get_xlim(), close.get_ylim()
        for panel in (whole, close):
            _draw_frontier(panel, frontier)
        close.set_xlim(limits[0])
        close.set_ylim(limits[1])
        _draw(whole, base, COLOURS[BASE], "o", "base model")
        canvas.legend(*whole.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=10)
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _standalone(stream.getvalue(), PAGE_CSS.read_text(encoding="utf-8"))


def _draw_frontier(axes: Any, frontier: Sequence[Policy]) -> None:
    tokens, accuracy = [policy.mean_tokens for policy in frontier], [100 * policy.accuracy for policy in frontier]
    look = {"color": COLOURS["muted"], "linestyle": (0, (4, 3)), "zorder": 1}
    axes.plot(tokens, accuracy, label="oracle frontier, simulated", **look)


def _point(runs: TestSeeds, names: tuple[str, str], confidence: float) -> Point:
    tokens, accuracy = (estimate([getattr(runs[seed], name) for seed in sorted(runs)], confidence) for name in names)
    return tokens, accuracy


def _draw_arms(axes: Any, points: Mapping[str, Point], kinds: Mapping[str, str]) -> None:
    """Colour by kind, shape by place in the kind."""
    counts = dict.fromkeys(KINDS, 0)
    for arm, point in points.items():
        kind = kinds[arm]
        _draw(axes, point, COLOURS[KINDS[kind]], MARKERS[counts[kind] % len(MARKERS)], arm)
        counts[kind] += 1


def _draw(axes: Any, point: Point, colour: str, marker: str, label: str) -> None:
    tokens, accuracy = point
    axes.errorbar(
        [tokens.mean], [100 * accuracy.mean], xerr=_half(tokens, 1.0), yerr=_half(accuracy, 100.0), color=colour, marker=marker,
        markersize=7, elinewidth=1.2, linestyle="none", markeredgecolor=COLOURS["surface"], markeredgewidth=0.8, zorder=3,
        label=label,
    )  # fmt: skip


def _half(found: Estimate, scale: float) -> float | None:
    return None if found.interval is None else scale * (found.interval[1] - found.mean)


def _standalone(svg: str, css: str) -> str:
    """A file of its own: sentinel colours replaced, text in the reader's font, on a surface of its own where all is dark."""
    light: dict[str, str] = {}
    for name, colour in VARIABLE.findall(css):
        light.setdefault(name, colour)  # the first of each is that of the light scheme
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata\b.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*", f"font-family: {FONT}", body)
    for name, sentinel in COLOURS.items():
        body = body.replace(sentinel, light[name])
    start = body.index(">", body.index("<svg")) + 1
    surface = f'\n <rect width="100%" height="100%" rx="8" fill="{light["surface"]}"/>'
    return body[:start] + surface + body[start:]
