"""The charts of length: histograms before and after by correctness, and accuracy at token budgets. Pure.

Takes rows of `evidence.figures.length_histogram` and of `evidence.budget.budget_curve`; nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.page.canvas import COLOURS, SERIES, Chart, Panel, drawing, panel, series, series_mark

Rows = Sequence[Mapping[str, Any]]
SIDES = ("before", "after")
KINDS = {"correct": "Correct answers", "wrong": "Wrong answers"}


def length_chart(before: Mapping[str, Rows], after: Mapping[str, Rows]) -> Chart:
    """Histograms by task, before and after on the same bins."""
    panels = [
        _histogram(f"lengths-{number}-{kind}", _of_task(title, task, before), kind, (before[task], after[task]))
        for number, task in enumerate(before)
        for kind, title in KINDS.items()
    ]
    caption = [
        "Every answer counts once; n is the number of answers. Both models gave as many answers, so the areas of correct and "
        "wrong together are equal. Note the different scales of the vertical axes.",
        "A cut answer is wrong and counts with the tokens it had when it was cut.",
    ]
    return Chart("lengths", _marks(), panels, caption)


def budget_chart(before: Rows, after: Rows) -> Chart:
    """Accuracy and cut answers by task if every answer had been cut at a budget."""
    panels = []
    tasks = list(dict.fromkeys(row["task"] for row in before))
    by_task = {task: [[row for row in rows if row["task"] == task] for rows in (before, after)] for task in tasks}
    for number, (task, pair) in enumerate(by_task.items()):
        heading = _of_task("Accuracy", task, by_task)
        panels.append(_curve(f"budget-{number}-accuracy", heading, "accuracy, %", "accuracy", pair))
        heading = _of_task("Answers cut", task, by_task)
        panels.append(_curve(f"budget-{number}-cut", heading, "share of answers cut, %", "truncation_rate", pair))
    caption = [
        "Computed from the answers that were given: one that is longer than the budget counts as cut, hence wrong. Bars are "
        "± 1 standard error over questions; none is computed for the share of cut answers.",
        "The points of one curve come from the same answers, so they are not independent.",
    ]
    return Chart("budget", _marks(), panels, caption)


def _marks() -> list[Any]:
    return [series_mark(number, side) for number, side in enumerate(SIDES)]


def _of_task(title: str, task: str, tasks: Mapping[str, Any]) -> str:
    return title if len(tasks) == 1 else f"{title}, {task}"


def _histogram(key: str, heading: str, kind: str, sides: Sequence[Rows]) -> Panel:
    counts = [[row[kind] for row in rows] for rows in sides]
    edges = [sides[0][0]["lower"], *(row["upper"] for row in sides[0])]
    totals = ", ".join(f"{sum(mine):,} {side}" for side, mine in zip(SIDES, counts, strict=True))
    with drawing() as (figure, axes):
        for number, mine in enumerate(counts):
            colour = COLOURS[SERIES[number]]
            axes.stairs(mine, edges, fill=True, color=colour, alpha=0.15, linewidth=0)
            axes.stairs(mine, edges, color=colour, linewidth=2.2, linestyle="solid" if number else (0, (4, 1.5)))
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, max(1, *map(max, counts)) * 1.05)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("tokens per answer")
        axes.set_ylabel(f"answers per {edges[1] - edges[0]} tokens")
        heading = f"{heading} (n = {totals})"
        text = "; ".join(_peak(side, mine, edges) for side, mine in zip(SIDES, counts, strict=True))
        return panel(figure, key, heading, text)


def _peak(side: str, counts: Sequence[int], edges: Sequence[int]) -> str:
    if not any(counts):
        return f"{side}: none"
    highest = max(range(len(counts)), key=counts.__getitem__)
    return f"{side}: most answers, {counts[highest]:,}, have {edges[highest]} to {edges[highest + 1] - 1} tokens"


def _curve(key: str, heading: str, unit: str, name: str, sides: Sequence[Rows]) -> Panel:
    with drawing() as (figure, axes):
        for number, rows in enumerate(sides):
            budgets, values = [row["budget"] for row in rows], [100 * row[name] for row in rows]
            errors = [100 * (row.get(f"{name}_se") or 0.0) for row in rows] if f"{name}_se" in rows[0] else None
            look = series(number) | {"linestyle": "solid" if number else (0, (4, 1.5))}
            axes.errorbar(budgets, values, yerr=errors, **look, markersize=6, markeredgecolor=COLOURS["surface"])
        budgets = sorted({row["budget"] for rows in sides for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets], fontsize=12 if len(budgets) < 8 else 9)
        axes.minorticks_off()
        axes.set_ylim(-3, 103)
        axes.set_xlabel("token budget per answer")
        axes.set_ylabel(unit)
        text = "; ".join(f"{side}: {_points(rows, name)}" for side, rows in zip(SIDES, sides, strict=True))
        return panel(figure, key, heading, text)


def _points(rows: Rows, name: str) -> str:
    return ", ".join(f"{100 * row[name]:.1f} % at {row['budget']:,}" for row in rows)
