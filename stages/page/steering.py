"""The charts of the ratio: what was mixed, and what the control set said. Pure; nothing is read or written.

Takes the rows of results/ratio.csv as numbers (tokens per answer, shares), one per control evaluation, and the contents of
results/schedule.json and results/train.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.page.canvas import COLOURS, Chart, Mark, Panel, drawing, panel

Row = Mapping[str, float]
Level = tuple[float, float | None, str, Any]  # value, standard error, colour, line style
DASHED, DOTTED = (0, (5, 3)), (0, (1, 2))


class Measure(NamedTuple):
    """A column of results/ratio.csv, the name of its bounds, and how it is shown."""

    column: str
    bound: str
    heading: str
    unit: str
    scale: float


MEASURES = (
    Measure("mean_tokens", "tokens", "Control tokens", "mean tokens per answer", 1.0),
    Measure("accuracy", "accuracy", "Control accuracy", "accuracy, %", 100.0),
)


def ratio_chart(
    rows: Sequence[Row],
    schedule: Mapping[str, Any],
    floor: float | None,
    selected_step: int | None,
    num_questions: int | None,
    num_asked: int | None,
) -> Chart:
    """`floor` is the least share of each source, None where no floor holds; `num_questions` counts the control set, and
    `num_asked` what each evaluation asked of it, None for all."""
    panels = [
        _shares(rows, floor, selected_step),
        *(_measured(rows, measure, _levels(schedule, measure.bound), selected_step) for measure in MEASURES),
    ]
    marks = [
        Mark("━━", "candidate", "System-1 share asked for"),
        Mark("●", "run-1", "share of the examples that were trained on"),
        Mark("▲", "run-2", "share of their tokens"),
        Mark("■", "candidate", "control set, ± 1 standard error"),
        Mark("━━", "base", "long bound (the base model)"),
        Mark("╍╍", "run-1", "short bound"),
    ]
    if selected_step is not None:
        marks.append(Mark("┊", "muted", f"selected checkpoint (step {selected_step})"))
    return Chart("ratio", marks, panels, _caption(rows, floor, num_questions, num_asked))


def _caption(rows: Sequence[Row], floor: float | None, num_questions: int | None, num_asked: int | None) -> list[str]:
    many = "" if num_questions is None else f" of {num_questions:,} questions"
    chosen = "The same control set steers the ratio and selects the checkpoint, so its figures flatter the selected one"
    if num_asked is not None:
        many = f" of {num_asked:,} questions each, other ones every time" + (many and f", out{many}")
        chosen = (
            "The points are estimates for the whole control set, which those that looked shortest answered afterwards, so the "
            "selected one tends to look shorter here than it is"
        )
    return [
        f"{len(rows)} control evaluations{many}; the ratio of each window of steps was set by the evaluation before it.",
        "No floor holds under this controller and schedule."
        if floor is None
        else f"Dashed: the bounds of the share, {100 * floor:g} % and {100 * (1 - floor):g} % (ratio.floor).",
        f"Shaded: the bounds ± 1 standard error where they were measured. {chosen}; the table above is on other questions.",
    ]


def _shares(rows: Sequence[Row], floor: float | None, selected_step: int | None) -> Panel:
    steps = [row["step"] for row in rows]
    starts = [0.0, *steps[:-1]]
    asked = [100 * row["short_share"] for row in rows]
    with drawing() as (figure, axes):
        axes.step([*starts, steps[-1]], [*asked, asked[-1]], where="post", color=COLOURS["candidate"], linewidth=2.2)
        middles = [(start + end) / 2 for start, end in zip(starts, steps, strict=True)]
        for name, colour, marker in (("example_share", "run-1", "o"), ("token_share", "run-2", "^")):
            look = {"color": COLOURS[colour], "marker": marker, "linestyle": "none", "markersize": 6}
            axes.plot(middles, [100 * row[name] for row in rows], **look, markeredgecolor=COLOURS["surface"])
        for level in [] if floor is None else [floor, 1 - floor]:
            axes.axhline(100 * level, color=COLOURS["muted"], linestyle=DASHED, linewidth=1.2)
        _selected(axes, selected_step)
        axes.set_ylim(-3, 103)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("System-1 share, %")
        text = "; ".join(f"to step {row['step']:g}: {100 * row['short_share']:.1f} %" for row in rows)
        return panel(figure, "ratio-share", "System-1 share", text)


def _levels(schedule: Mapping[str, Any], name: str) -> list[Level]:
    """The bounds that results/schedule.json holds."""
    looks = (("long", "base", "solid"), ("short", "run-1", DASHED))
    return [
        (schedule[f"{side}_{name}"], schedule.get(f"{side}_{name}_se"), colour, line)
        for side, colour, line in looks
        if schedule.get(f"{side}_{name}") is not None
    ]


def _measured(rows: Sequence[Row], measure: Measure, levels: Sequence[Level], selected_step: int | None) -> Panel:
    scale, steps = measure.scale, [row["step"] for row in rows]
    values, errors = ([scale * row[key] for row in rows] for key in (measure.column, f"{measure.column}_se"))
    with drawing() as (figure, axes):
        for value, error, colour, line in levels:
            axes.axhline(scale * value, color=COLOURS[colour], linestyle=line, linewidth=1.6)
            if error:
                band = (scale * (value - error), scale * (value + error))
                axes.axhspan(*band, color=COLOURS[colour], alpha=0.15, linewidth=0)
        look = {"color": COLOURS["candidate"], "marker": "s", "markersize": 6, "markeredgecolor": COLOURS["surface"]}
        axes.errorbar(steps, values, yerr=errors, **look, elinewidth=1.6, capsize=3)
        _selected(axes, selected_step)
        axes.set_xlim(0, steps[-1] * 1.04)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(measure.unit)
        text = "; ".join(f"step {step:g}: {value:.2f}" for step, value in zip(steps, values, strict=True))
        return panel(figure, f"ratio-{measure.bound}", measure.heading, text)


def _selected(axes: Any, step: int | None) -> None:
    if step is not None:
        axes.axvline(step, color=COLOURS["muted"], linestyle=DOTTED, linewidth=1.6)
