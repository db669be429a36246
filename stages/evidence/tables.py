"""The cells of a report's tables: text per row and column, the same for the terminal, Markdown and CSV readers.

Input is the dict of `summary.compare`. Pure functions; report.py prints what they give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]
TASK = "task"
VERDICT = "verdict"
DIFFERENCE = "difference, points"
DETECTABLE = "detectable, points"
REDUCTION = "fewer tokens, %"


@dataclass(frozen=True)
class Cells:
    """A table: its columns, a dict of cells per row, the overall row last, and its columns if it must be cut in parts."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    narrow: tuple[tuple[str, ...], ...]


def both(name: str) -> tuple[str, str]:
    """The columns of a figure that both models have."""
    return f"{name} before", f"{name} after"


def overview(report: Report) -> Cells:
    """Accuracy, difference, tokens and verdict."""
    unit = report["length_unit"]
    accuracy, mean, p90 = both("accuracy %"), both(f"mean {unit}"), both(f"p90 {unit}")
    reduction = REDUCTION.replace("tokens", unit)

    def cells(base: Report, candidate: Report, part: Report) -> dict[str, str]:
        difference = part["accuracy_difference"]
        return {
            **_sides(accuracy, base, candidate, _accuracy),
            DIFFERENCE: f"{100 * difference['value']:+.2f} {interval(difference['ci'], 2, signed=True)}",
            DETECTABLE: f"{100 * part['minimum_detectable_effect']:.2f}",
            **_sides(mean, base, candidate, lambda side: tokens(side["mean_tokens"])),
            **_sides(p90, base, candidate, lambda side: tokens(side["p90_tokens"], digits=0)),
            reduction: _reduction(part["token_reduction"], "micro", "ci"),
            VERDICT: part.get("verdict_holm", part["verdict"]),
        }

    columns = (TASK, *accuracy, DIFFERENCE, DETECTABLE, *mean, *p90, reduction, VERDICT)
    narrow = ((TASK, *accuracy, DIFFERENCE, VERDICT), (TASK, *mean, *p90, reduction, DETECTABLE))
    return Cells(columns, _rows(report, cells), narrow)


def reductions(report: Report) -> Cells:
    """Ways to count fewer tokens, each with its interval."""
    unit = report["length_unit"]
    columns = (TASK, f"fewer {unit}, % (micro)", "median question, %", "both correct, %", "per correct answer, %")

    def cells(base: Report, candidate: Report, part: Report) -> dict[str, str]:
        reduction = part["token_reduction"]
        before, after = base["tokens_per_correct"], candidate["tokens_per_correct"]
        per_correct = None if before is None or after is None else 1 - after / before
        texts = (
            _reduction(reduction, "micro", "ci"),
            _reduction(reduction, "median", "median_ci"),
            _reduction(reduction, "both_correct", "both_correct_ci"),
            percent(per_correct, 1),
        )
        return dict(zip(columns[1:], texts, strict=True))

    return Cells(columns, _rows(report, cells), (columns[:3], (TASK, *columns[3:])))


def lengths(report: Report) -> Cells:
    """Percentiles, length per, given a correct and given a wrong answer."""
    unit = report["length_unit"]
    figures = {
        f"p50 {unit}": "p50_tokens",
        f"p99 {unit}": "p99_tokens",
        f"{unit} per correct": "tokens_per_correct",
        f"{unit} if correct": "tokens_given_correct",
        f"{unit} if wrong": "tokens_given_wrong",
    }
    names = [column for figure in figures for column in both(figure)]

    def cells(base: Report, candidate: Report, part: Report) -> dict[str, str]:
        row: dict[str, str] = {}
        for figure, key in figures.items():
            row |= _sides(both(figure), base, candidate, lambda side, key=key: tokens(side[key]))
        return row

    return Cells((TASK, *names), _rows(report, cells), ((TASK, *names[:4]), (TASK, *names[4:])))


def rates(report: Report) -> Cells:
    """Truncation, answers without thinking, pass@k, and how much was asked."""
    ks = [k for k in report["baseline"]["pass_at_k"] if k in report["candidate"]["pass_at_k"]]
    shown = [k for k in (ks[0], ks[-1]) if k != "1"][-1:]
    figures = {"cut %": "truncation_rate", "no thinking %": "no_think_rate"}
    names = [column for figure in (*figures, *(f"pass@{k} %" for k in shown)) for column in both(figure)]

    def cells(base: Report, candidate: Report, part: Report) -> dict[str, str]:
        row = {"questions": f"{base['num_questions']:,}", "answers": f"{base['num_samples']:,}"}
        for figure, key in figures.items():
            row |= _sides(both(figure), base, candidate, lambda side, key=key: percent(side[key], 2))
        for k in shown:
            row |= _sides(both(f"pass@{k} %"), base, candidate, lambda side, k=k: percent(side["pass_at_k"].get(k), 2))
        return row

    return Cells((TASK, "questions", "answers", *names), _rows(report, cells), ((TASK, *names),))


def runs(report: Report) -> Cells:
    """Training runs of the candidate, one per row, and how far they lie apart (seeds.py)."""
    columns = (
        "run",
        "accuracy %",
        DIFFERENCE,
        f"mean {report['length_unit']}",
        f"fewer {report['length_unit']}, %",
        VERDICT,
    )
    rows = [
        (
            name,
            _accuracy(run["candidate"]),
            f"{100 * run['accuracy_difference']['value']:+.2f} {interval(run['accuracy_difference']['ci'], 2, signed=True)}",
            tokens(run["candidate"]["mean_tokens"]),
            _reduction(run["token_reduction"], "micro", "ci"),
            run["verdict"],
        )
        for name, run in report["runs"].items()
    ]
    spread = report["spread"]

    def spanned(name: str, scale: float, digits: int, sign: str = "") -> str:
        figure = spread[name]
        return f"{scale * figure['mean']:{sign}.{digits}f} (sd {scale * figure['sd']:.{digits}f})"

    passed = spread["verdicts"]["PASS"]
    rows.append(
        (
            f"mean of {spread['num_runs']} runs",
            spanned("accuracy", 100, 2),
            spanned("accuracy_difference", 100, 2, "+"),
            spanned("mean_tokens", 1, 1),
            spanned("token_reduction_micro", 100, 1),
            f"{passed} of {spread['num_runs']} PASS",
        )
    )
    texts = [dict(zip(columns, row, strict=True)) for row in rows]
    return Cells(columns, texts, (columns[:3], (columns[0], *columns[3:])))


def flips(report: Report) -> Cells:
    """Questions whose share of correct answers changed, largest changes first."""
    columns = ("question", TASK, "correct before", "correct after", "change")
    several = len(report["names"]["candidate"]) > 1
    rows = [
        (
            flip["question_id"] + (f" ({flip['candidate']})" if several else ""),
            flip["task"] if flip["group"] in ("", flip["task"]) else f"{flip['task']} {flip['group']}",
            f"{flip['before']} of {flip['num_samples']}",
            f"{flip['after']} of {flip['num_samples']}",
            flip["kind"],
        )
        for flip in report["flips"]
    ]
    return Cells(columns, [dict(zip(columns, row, strict=True)) for row in rows], (columns,))


def interval(bounds: Sequence[float] | None, digits: int, *, signed: bool) -> str:
    """[lower, upper] in percent or points."""
    if bounds is None:
        return "[n/a]"
    sign = "+" if signed else ""
    return "[" + ", ".join(f"{100 * bound:{sign}.{digits}f}" for bound in bounds) + "]"


def tokens(count: float | None, digits: int = 1) -> str:
    if count is None:
        return "n/a"
    return f"{count:,.{digits}f}" if count < 1000 else f"{count:,.0f}"


def percent(share: float | None, digits: int) -> str:
    return "n/a" if share is None else f"{100 * share:.{digits}f}"


def _rows(report: Report, cells: Any) -> list[dict[str, str]]:
    """In the report's order; of several, the overall one comes last."""
    base, candidate = report["baseline"], report["candidate"]
    rows = [
        {TASK: name, **cells(base["tasks"][name], candidate["tasks"][name], part)}
        for name, part in report["tasks"].items()
    ]
    return rows if len(rows) == 1 else [*rows, {TASK: "overall", **cells(base, candidate, report)}]


def _sides(columns: tuple[str, str], base: Report, candidate: Report, text: Any) -> dict[str, str]:
    return {columns[0]: text(base), columns[1]: text(candidate)}


def _accuracy(side: Report) -> str:
    error = "n/a" if side["accuracy_se"] is None else f"{100 * side['accuracy_se']:.2f}"
    return f"{100 * side['accuracy']:.2f} ± {error}"


def _reduction(reduction: Report, value: str, bounds: str) -> str:
    if reduction[value] is None:
        return "n/a"
    return f"{percent(reduction[value], 1)} {interval(reduction[bounds], 1, signed=False)}"
