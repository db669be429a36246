"""The Pareto chart: accuracy against mean tokens per answer, with intervals on both axes. Pure; nothing is read or written.

Sides are those of `evidence.summary.compare`: accuracy (share), accuracy_ci, mean_tokens, mean_tokens_ci, num_questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.page.canvas import COLOURS, Chart, Mark, Panel, drawing, panel, series, series_mark

Side = Mapping[str, Any]
Frontier = Sequence[tuple[float, float]]  # (mean tokens, accuracy), fewest tokens first
MAX_NAME = 18  # characters of a row's name in the plot; the table has it in full
MAX_ROWS = 16  # tasks or groups in the second panel; more cannot be told apart


def pareto_chart(runs: Mapping[str, Side], frontier: Frontier, confidence: float) -> Chart:
    """`runs` by label: the baseline, the candidate, then any others. `frontier` may be empty."""
    panels = [_overall(runs, frontier)]
    names = list(next(iter(runs.values()))["tasks"])
    if 1 < len(names) <= MAX_ROWS:
        panels.append(_rows(runs, names))
    marks = [
        series_mark(number, f"{label} (n = {side['num_questions']:,})") for number, (label, side) in _numbered(runs)
    ]
    caption = [
        "Up and to the left is better. n counts questions; each is the mean of its answers first.",
        f"Bars are two-sided {100 * confidence:g} % intervals over questions, of each run by itself: overlapping bars do not "
        "show that two runs are equal, the paired difference in the table decides.",
    ]
    if len(panels) > 1:
        caption.append(
            "By task or group: the rows of the table, each line from the baseline to the candidate on the same questions."
        )
    if frontier:
        marks.append(Mark("╍╍", "muted", "oracle frontier, simulated"))
        caption.append(
            "The oracle frontier is the best that any rule of checking reaches with the generator of the traces of the tiny "
            "task; it is simulated without a model, so a model that errs more often than the generator lies below it."
        )
    return Chart("pareto", marks, panels, caption)


def _numbered(runs: Mapping[str, Side]) -> list[tuple[int, tuple[str, Side]]]:
    return list(enumerate(runs.items()))


def _overall(runs: Mapping[str, Side], frontier: Frontier) -> Panel:
    with drawing() as (figure, axes):
        if frontier:
            tokens, accuracy = zip(*frontier, strict=True)
            axes.plot(
                tokens, [100 * share for share in accuracy], color=COLOURS["muted"], linestyle=(0, (4, 3)), zorder=1
            )
        for number, side in enumerate(runs.values()):
            _point(axes, side, number, size=8)
        _label(axes)
        return panel(figure, "pareto-overall", "All questions", _described(runs))


def _rows(runs: Mapping[str, Side], names: Sequence[str]) -> Panel:
    base, candidate = list(runs.values())[:2]
    with drawing() as (figure, axes):
        for name in names:
            ends = [side["tasks"][name] for side in (base, candidate)]
            axes.plot(*_coordinates(ends), color=COLOURS["line"], zorder=1)
            for number, end in enumerate(ends):
                _point(axes, end, number, size=5, width=0.8)
            x, y = _coordinates(ends[:1])
            axes.annotate(
                _short(name), (x[0], y[0]), xytext=(2, 4), textcoords="offset points", fontsize=9, rotation=35
            )
        _label(axes)
        axes.margins(x=0.12, y=0.12)
        text = "; ".join(
            f"{name}: {_figures(base['tasks'][name])} to {_figures(candidate['tasks'][name])}" for name in names
        )
        return panel(figure, "pareto-rows", "By task or group", text)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _coordinates(sides: Sequence[Side]) -> tuple[list[float], list[float]]:
    return [side["mean_tokens"] for side in sides], [100 * side["accuracy"] for side in sides]


def _point(axes: Any, side: Side, number: int, *, size: float, width: float = 1.6) -> None:
    x, y = side["mean_tokens"], 100 * side["accuracy"]
    errors = {
        "xerr": _error(x, side["mean_tokens_ci"], 1.0),
        "yerr": _error(y, side["accuracy_ci"], 100.0),
    }
    look = series(number)
    axes.errorbar(
        [x], [y], **errors, **look, markersize=size, elinewidth=width, linestyle="none",
        markeredgecolor=COLOURS["surface"], markeredgewidth=0.8, zorder=3,
    )  # fmt: skip


def _error(value: float, interval: Sequence[float] | None, scale: float) -> list[list[float]] | None:
    """Lengths of the bar to both sides; an interval need not hold the estimate at its ends, but no bar is negative."""
    if interval is None:
        return None
    return [[max(0.0, value - scale * interval[0])], [max(0.0, scale * interval[1] - value)]]


def _label(axes: Any) -> None:
    axes.set_xlabel("mean tokens per answer")
    axes.set_ylabel("accuracy, %")


def _described(runs: Mapping[str, Side]) -> str:
    return "; ".join(f"{label}: {_figures(side)}" for label, side in runs.items())


def _figures(side: Side) -> str:
    return f"{100 * side['accuracy']:.2f} % at {side['mean_tokens']:,.1f} tokens"
