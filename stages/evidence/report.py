"""The report as tables for people: rich for the terminal, Markdown for pull requests.

Input is the dict of `summary.compare`. Callers may add `report["model"]` = {"path", "serve_command",
"selection_fallback" (0 or 1)}; those that are given appear in the notes. Printed to the console that is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
TASK = "task"
ACCURACY = ("accuracy % before", "accuracy % after")
DIFFERENCE = "difference, points"
MEAN = ("mean tokens before", "mean tokens after")
P90 = ("p90 tokens before", "p90 tokens after")
SHORT = {MEAN[0]: "tokens before", MEAN[1]: "tokens after", P90[0]: "p90 before", P90[1]: "p90 after"}
REDUCTION = "fewer tokens, %"
VERDICT = "verdict"
WIDE = (TASK, *ACCURACY, DIFFERENCE, *MEAN, *P90, REDUCTION, VERDICT)
NARROW = ((TASK, *ACCURACY, DIFFERENCE, VERDICT), (TASK, *MEAN, *P90, REDUCTION))


def render(report: Mapping[str, Any], *, console: Console) -> None:
    """Headline, one table (two where one is too wide for the console) and the notes."""
    console.print(Text(headline(report), STYLES[report["verdict"]]))
    console.print()
    rows = table_rows(report)
    wide = _table(WIDE, rows)
    unbounded = console.options.update_width(10 * console.width + 1000)
    fits = console.measure(wide, options=unbounded).maximum <= console.width
    for table in [wide] if fits else [_table(columns, rows) for columns in NARROW]:
        console.print(table)
        console.print()
    for note in notes(report):
        console.print(Text(note, "bold red" if note.startswith("WARNING") else ""))
    model = report.get("model", {})
    for label, key in (("Model", "path"), ("Serve", "serve_command")):
        if model.get(key):  # one unbroken line, so that it can be copied
            console.print(Text(f"{label}: {model[key]}"), soft_wrap=True)


def markdown(report: Mapping[str, Any]) -> str:
    """The same headline, table and notes as GitHub-flavoured Markdown, ending with a newline."""
    lines = [f"**{headline(report)}**", "", _markdown_row(WIDE)]
    lines.append(_markdown_row(["---"] + ["---:"] * (len(WIDE) - 2) + ["---"]))
    lines += [_markdown_row([row[name] for name in WIDE]) for row in table_rows(report)]
    lines += ["", *(f"- {note}" for note in notes(report))]
    model = report.get("model", {})
    if model.get("path"):
        lines.append(f"- Model: {model['path']}")
    if model.get("serve_command"):
        lines += ["- Serve:", "", "  ```sh", f"  {model['serve_command']}", "  ```"]
    return "\n".join(lines) + "\n"


def headline(report: Mapping[str, Any]) -> str:
    """The whole result in one sentence."""
    reduction, difference = report["token_reduction"], report["accuracy_difference"]
    change = "fewer" if reduction["micro"] >= 0 else "more"
    margin = f"{100 * report['margin']:g}-point margin"
    return (
        f"{report['verdict']}: {abs(100 * reduction['micro']):.1f} % {change} tokens, "
        f"accuracy {100 * difference['value']:+.2f} points "
        f"{_interval(difference['ci'], 2, signed=True)} against a {margin}"
    )


def table_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """One dict of cells per task or group, in the report's order; of several, the overall one comes last."""
    base, candidate = report["baseline"], report["candidate"]
    rows = [_cells(name, base["tasks"][name], candidate["tasks"][name], part) for name, part in report["tasks"].items()]
    return rows if len(rows) == 1 else [*rows, _cells("overall", base, candidate, report)]


def notes(report: Mapping[str, Any]) -> list[str]:
    """Sentences that keep a reader from concluding too much."""
    base, candidate = report["baseline"], report["candidate"]
    lines = []
    if report.get("model", {}).get("selection_fallback"):
        lines.append(
            "WARNING: no checkpoint was shown to be as accurate as the base model on the control set; this is the most "
            "accurate one (selection fallback)."
        )
    lines.append(_verdict_note(report))
    lines.append(
        f"{_count(base['num_questions'], 'question')}, {base['num_samples']:,} answers per model; intervals at "
        f"{100 * report['confidence']:g} %, ± is one standard error over questions; row verdicts are not adjusted for "
        "their number. Overall pools all questions; the signed mean of the rows is "
        f"{100 * report['token_reduction']['macro']:.1f} % fewer tokens."
    )
    lines.append(
        f"Truncated (counted as wrong): {_share(base['truncation_rate'])} before, "
        f"{_share(candidate['truncation_rate'])} after. "
        f"Without thinking: {_share(base['no_think_rate'])} before, {_share(candidate['no_think_rate'])} after."
    )
    return lines


def _verdict_note(report: Mapping[str, Any]) -> str:
    margin = f"{100 * report['margin']:g} point{'' if report['margin'] == 0.01 else 's'}"
    effect = f"{100 * report['minimum_detectable_effect']:.2f}"
    if report["verdict"] == "PASS":
        return f"PASS: the accuracy loss is shown to be below {margin} (one-sided level {report['alpha']:g})."
    if report["verdict"] == "FAIL":
        return f"FAIL: the accuracy loss is shown to exceed {margin} (one-sided level {report['alpha']:g})."
    return (
        f"INCONCLUSIVE: a loss of {margin} is neither excluded nor shown; at equal accuracy this comparison "
        f"excludes losses from {effect} points on (power 80 %). More questions or samples decide it."
    )


def _cells(name: str, base: Mapping[str, Any], candidate: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, str]:
    difference, reduction = part["accuracy_difference"], part["token_reduction"]
    return {
        TASK: name,
        ACCURACY[0]: _accuracy(base),
        ACCURACY[1]: _accuracy(candidate),
        DIFFERENCE: f"{100 * difference['value']:+.2f} {_interval(difference['ci'], 2, signed=True)}",
        MEAN[0]: _tokens(base["mean_tokens"]),
        MEAN[1]: _tokens(candidate["mean_tokens"]),
        P90[0]: f"{base['p90_tokens']:,.0f}",
        P90[1]: f"{candidate['p90_tokens']:,.0f}",
        REDUCTION: f"{100 * reduction['micro']:.1f} {_interval(reduction['ci'], 1, signed=False)}",
        VERDICT: part["verdict"],
    }


def _accuracy(side: Mapping[str, Any]) -> str:
    error = "n/a" if side["accuracy_se"] is None else f"{100 * side['accuracy_se']:.2f}"
    return f"{100 * side['accuracy']:.2f} ± {error}"


def _tokens(count: float) -> str:
    return f"{count:,.1f}" if count < 1000 else f"{count:,.0f}"


def _interval(bounds: Sequence[float] | None, digits: int, *, signed: bool) -> str:
    if bounds is None:
        return "[n/a]"
    sign = "+" if signed else ""
    return "[" + ", ".join(f"{100 * bound:{sign}.{digits}f}" for bound in bounds) + "]"


def _share(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        text, _, side = SHORT.get(name, name).rpartition(" ")
        header = f"{text}\n{side}" if side in ("before", "after") else name.replace(", ", "\n")
        table.add_column(
            Text(header),
            justify="left" if name in (TASK, VERDICT) else "right",
            no_wrap=name != TASK,
            min_width=4,
            overflow="fold",
        )
    for row in rows:
        last = row is rows[-1]
        if last and len(rows) > 1:
            table.add_section()
        cells = [Text(row[name], STYLES[row[name]] if name == VERDICT else "") for name in columns]
        table.add_row(*cells, style="bold" if last else "")
    return table


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
