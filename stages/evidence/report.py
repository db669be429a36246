"""The report for people: rich for the terminal, Markdown for pull requests.

Input is the dict of `summary.compare`. Callers may add `report["model"]` = {"path", "serve_command",
"selection_fallback" (0 or 1)}; those that are given appear in the notes. Printed to the console that is passed in.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stages.evidence.tables import (
    TASK,
    VERDICT,
    Cells,
    flips,
    interval,
    lengths,
    overview,
    percent,
    rates,
    reductions,
    runs,
)

Report = Mapping[str, Any]
STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
HEADER_WIDTH = 11
NAMES = (TASK, "run", "question")
TEXTS = (*NAMES, VERDICT, "change")


def render(report: Report, *, console: Console, details: bool = False) -> None:
    """Headline, overview (in parts where it is too wide for the console), three tables more with `details`, notes."""
    console.print(Text(headline(report), STYLES[report["verdict"]]))
    console.print()
    for cells in tables(report, details=details):
        show(cells, console)
    for note in notes(report, details=details):
        console.print(Text(note, "bold red" if note.startswith("WARNING") else ""))
    model = report.get("model", {})
    for label, key in (("Model", "path"), ("Serve", "serve_command")):
        if model.get(key):  # one unbroken line, so that it can be copied
            console.print(Text(f"{label}: {model[key]}"), soft_wrap=True)


def markdown(report: Report, *, details: bool = False) -> str:
    """The same headline, tables and notes as GitHub-flavoured Markdown, ending with a newline."""
    lines = [f"**{headline(report)}**", ""]
    for cells in tables(report, details=details):
        lines += [*markdown_table(cells), ""]
    lines += [f"- {note}" for note in notes(report, details=details)]
    model = report.get("model", {})
    if model.get("path"):
        lines.append(f"- Model: {model['path']}")
    if model.get("serve_command"):
        lines += ["- Serve:", "", "  ```sh", f"  {model['serve_command']}", "  ```"]
    return "\n".join(lines) + "\n"


def tables(report: Report, *, details: bool) -> list[Cells]:
    """The overview, and with `details` reductions, lengths and rates; runs and flips where the report has them."""
    kinds = [overview, reductions, lengths, rates] if details else [overview]
    if "runs" in report:
        kinds.insert(0, runs)
    if report.get("flips"):
        kinds.append(flips)
    return [kind(report) for kind in kinds]


def headline(report: Report) -> str:
    """The whole result in one sentence."""
    reduction, difference = report["token_reduction"], report["accuracy_difference"]
    margin = f"{100 * report['margin']:g}-point margin"
    return (
        f"{report['verdict']}: {change(reduction['micro'], report['length_unit'])}, "
        f"accuracy {100 * difference['value']:+.2f} points "
        f"{interval(difference['ci'], 2, signed=True)} against a {margin}"
    )


def change(reduction: float, unit: str) -> str:
    """A signed reduction in words: 12.3 % fewer tokens."""
    return f"{abs(100 * reduction):.1f} % {'fewer' if reduction >= 0 else 'more'} {unit}"


def table_rows(report: Report) -> list[dict[str, str]]:
    """One dict of the overview's cells per task or group, in the report's order; of several, the overall one comes last."""
    return overview(report).rows


def notes(report: Report, *, details: bool = False) -> list[str]:
    """Sentences that keep a reader from concluding too much."""
    base, candidate, unit = report["baseline"], report["candidate"], report["length_unit"]
    lines = []
    if report.get("model", {}).get("selection_fallback"):
        lines.append(
            "WARNING: no checkpoint was shown to be as accurate as the base model on the control set; this is the most "
            "accurate one (selection fallback)."
        )
    lines += [f"WARNING: compared in spite of a mismatch: {sentence}." for sentence in report["mismatches"]]
    if "runs" in report:
        lines.append(
            f"{report['spread']['num_runs']} training runs pooled: their answers count as samples of each question, so the "
            "intervals below the first table do not hold the variation between trainings; its last row does."
        )
    if report.get("flips") == []:
        lines.append("No question changed its share of correct answers.")
    if unit == "words":
        lines.append("WARNING: lengths are whitespace-separated words, because the files hold no token counts.")
    lines += report.get("remarks", [])
    lines.append(_verdict_note(report))
    lines.append(_count_note(report))
    lines.append(
        f"Truncated (counted as wrong): {percent(base['truncation_rate'], 2)} % before, "
        f"{percent(candidate['truncation_rate'], 2)} % after. Without thinking: {percent(base['no_think_rate'], 2)} % "
        f"before, {percent(candidate['no_think_rate'], 2)} % after."
    )
    return [*lines, *_aggregates(report)] if details else lines


def _verdict_note(report: Report) -> str:
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


def _count_note(report: Report) -> str:
    base, candidate = report["baseline"], report["candidate"]
    answers = f"{base['num_samples']:,} answers per model"
    if base["num_samples"] != candidate["num_samples"]:
        answers = f"{base['num_samples']:,} answers before, {candidate['num_samples']:,} after"
    rows = "; row verdicts are adjusted for their number (Holm)" if len(report["tasks"]) > 1 else ""
    count = base["num_questions"]
    return (
        f"{count:,} question{'' if count == 1 else 's'}, {answers}; intervals at {100 * report['confidence']:g} %, ± is "
        f"one standard error over questions{rows}. Overall pools all questions; the signed mean of the rows is "
        f"{change(report['token_reduction']['macro'], report['length_unit'])}."
    )


def _aggregates(report: Report) -> list[str]:
    """How the rows become one number, in the ways in which the field does it."""
    reduction, unit = report["token_reduction"], report["length_unit"]
    aes = report["aes"]["value"]
    weights = ", ".join(f"{weight:g}" for weight in report["aes"]["weights"])
    return [
        report["aggregation"],
        f"Fewer {unit}: micro {percent(reduction['micro'], 1)} % {interval(reduction['ci'], 1, signed=False)}, signed macro "
        f"{percent(reduction['macro'], 1)} % {interval(reduction['macro_ci'], 1, signed=False)}; the paper's A.C.R., a macro "
        f"that counts longer answers as 0: {percent(reduction['clipped_macro'], 1)} %.",
        f"AES ({weights}): {'n/a' if aes is None else f'{aes:.3f}'}. Mean accuracy difference of the rows: "
        f"{100 * report['accuracy_difference']['macro']:+.2f} points.",
    ]


def show(cells: Cells, console: Console) -> None:
    """One table, or its parts where it is too wide."""
    wide = _table(cells.columns, cells.rows)
    unbounded = console.options.update_width(10 * console.width + 1000)
    fits = console.measure(wide, options=unbounded).maximum <= console.width
    for table in [wide] if fits else [_table(columns, cells.rows) for columns in cells.narrow]:
        console.print(table)
        console.print()


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(
            Text(_header(name)),
            justify="left" if name in TEXTS else "right",
            no_wrap=name not in NAMES,
            min_width=4,
            overflow="fold",
        )
    for row in rows:
        last = row is rows[-1] and columns[0] in (TASK, "run")  # the row that sums the others up
        if last and len(rows) > 1:
            table.add_section()
        cells = [Text(row[name], STYLES.get(row[name], "") if name == VERDICT else "") for name in columns]
        table.add_row(*cells, style="bold" if last else "")
    return table


def _header(name: str) -> str:
    """Several lines, so that columns stay narrow; the mean goes without saying."""
    text, _, side = name.removeprefix("mean ").rpartition(" ")
    if side not in ("before", "after"):
        return name.replace(", ", "\n")
    if text.startswith("p") and text[1:3].isdigit():
        text = text.split()[0]
    return "\n".join([*textwrap.wrap(text, HEADER_WIDTH), side])


def markdown_table(cells: Cells) -> list[str]:
    """Lines of a GitHub-flavoured table; texts to the left, numbers to the right."""
    rule = ["---" if name in TEXTS else "---:" for name in cells.columns]
    rows = [[row[name] for name in cells.columns] for row in cells.rows]
    return [_markdown_row(row) for row in (cells.columns, rule, *rows)]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
