"""Published tables for `tldr compare`: which group is compared with which, and how it is shown.

Reads CSV files of `stages.data.cell_table`, writes nothing. A report is the dict of `evidence.cells.compare_cells` with
`names` {baseline, candidate}; or, for a whole table, `comparisons`: a list of these, each with its `labels` as well.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages._errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from stages.data.cell_table import Groups, Labels

Report = dict[str, Any]
Row = dict[str, str]
SHARED = ("schema_version", "kind", "note", "aggregation")  # said once for a whole table
TEXTS = ("group", "baseline", "benchmark")
CLIPPED = "clipped macro % (the paper's A.C.R.)"
SHORT = {  # for the terminal
    "difference, points": "difference\npoints",
    "fewer tokens, micro %": "fewer\nmicro %",
    "fewer tokens, signed macro %": "signed\nmacro %",
    CLIPPED: "clipped\n(A.C.R.)",
    "AES (1, 3, 5)": "AES\n(1, 3, 5)",
    "mean tokens before": "tokens\nbefore",
    "mean tokens after": "tokens\nafter",
    "accuracy % before": "accuracy\nbefore",
    "accuracy % after": "accuracy\nafter",
    "fewer tokens, %": "fewer\n%",
}


def compare_cell_files(specs: Sequence[str], baseline_label: str | None = None) -> Report:
    """Of two specs `FILE#labels` the second against the first; of one, every group against the baseline of its base model.

    That is the group with the same labels but the last, whose last label is `baseline_label`; without it the first of
    them. One spec with `#labels` compares that group only.
    """
    from stages.data.cell_table import name, read_cells, select_group, split_spec

    if len(specs) == 1:
        return _whole_table(specs[0], baseline_label)
    if baseline_label is not None:
        raise UserError("--baseline-label is for one table; with two arguments the first is the baseline.")
    if len(specs) != 2:
        raise UserError(f"{len(specs)} published tables are too many; give one table, or a baseline and a candidate.")
    names, sides = [], []
    for spec in specs:
        path, wanted = split_spec(spec)
        groups = read_cells(path)
        labels = select_group(path, groups, wanted)
        names.append(f"{path}#{name(labels)}" if labels else str(path))
        sides.append(groups[labels])
    return _compared(sides, names, "correct the tables")


def show_cells(console: Console, report: Report) -> None:
    """A table per base model with a row per group; of a single comparison its benchmarks and their means; the notes."""
    from rich.text import Text

    parts = report.get("comparisons", [report])
    if len(parts) == 1:
        sections = {_title(parts[0]): _benchmark_rows(parts[0]), "Over the benchmarks": [_figures(parts[0])]}
    else:
        sections = {}
        for part in parts:
            *leading, last = part["labels"]["candidate"]
            title = " ".join(filter(None, ["/".join(leading), "against", part["labels"]["baseline"][-1]]))
            sections.setdefault(title, []).append({"group": last, **_figures(part)})
    for title, rows in sections.items():
        console.print(Text(title, "bold"), soft_wrap=True)
        _print_table(console, rows)
    for note in _notes(report):
        console.print(Text(note))


def cells_markdown(report: Report) -> str:
    """A row per group; of a single comparison its benchmarks and their means; the notes. Ends with a newline."""
    parts = report.get("comparisons", [report])
    if len(parts) == 1:
        lines = [f"**{_title(parts[0])}**", "", *_markdown_table(_benchmark_rows(parts[0])), ""]
        lines += _markdown_table([_figures(parts[0])])
    else:
        lines = _markdown_table(
            [
                {"group": part["names"]["candidate"], "baseline": part["labels"]["baseline"][-1]} | _figures(part)
                for part in parts
            ]
        )
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(report))]) + "\n"


def cells_csv(report: Report) -> str:
    """One row per group, shares and fractions at full precision, an undefined figure empty."""
    rows = []
    for part in report.get("comparisons", [report]):
        reduction = part["token_reduction"]
        rows.append(
            {
                "group": part["names"]["candidate"],
                "baseline": part["names"]["baseline"],
                "baseline_accuracy": part["baseline"]["accuracy"],
                "accuracy": part["candidate"]["accuracy"],
                "accuracy_difference": part["accuracy_difference"]["value"],
                "baseline_mean_tokens": part["baseline"]["mean_tokens"],
                "mean_tokens": part["candidate"]["mean_tokens"],
                **{f"token_reduction_{kind}": reduction[kind] for kind in ("micro", "macro", "clipped_macro")},
                "aes": part["aes"]["value"],
            }
        )
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _whole_table(spec: str, baseline_label: str | None) -> Report:
    from stages.data.cell_table import name, read_cells, select_group, split_spec

    path, wanted = split_spec(spec)
    groups = read_cells(path)
    baselines = _baselines(path.name, groups, baseline_label)
    chosen = list(groups) if wanted is None else [select_group(path, groups, wanted)]
    comparisons: list[Report] = []
    for labels in chosen:
        baseline = baselines[labels[:-1]]
        if labels != baseline:
            sides, names = (groups[baseline], groups[labels]), (name(baseline), name(labels))
            report = _compared(sides, names, f"correct {path} or choose another --baseline-label")
            comparisons.append(report | {"labels": {"baseline": list(baseline), "candidate": list(labels)}})
    if not comparisons:
        raise UserError(f"{path} has no group to compare with {name(baseline)}; choose another --baseline-label.")
    if wanted is not None:
        return comparisons[0]
    shared = {key: comparisons[0][key] for key in SHARED}
    return shared | {"comparisons": [{key: part[key] for key in part if key not in SHARED} for part in comparisons]}


def _compared(sides: Sequence[Any], names: Sequence[str], next_step: str) -> Report:
    from stages.evidence.cells import compare_cells

    try:
        report = compare_cells(*sides)
    except ValueError as error:
        raise UserError(f"{names[1]} cannot be compared with {names[0]}: {error}; {next_step}.") from None
    return report | {"names": {"baseline": names[0], "candidate": names[1]}}


def _baselines(file: str, groups: Groups, label: str | None) -> dict[Labels, Labels]:
    """The baseline of every combination of leading labels, which every group has."""
    found: dict[Labels, Labels] = {}
    for labels in groups:
        if label is None or labels[-1:] == (label,):
            found.setdefault(labels[:-1], labels)
    lacking = dict.fromkeys("/".join(labels[:-1]) for labels in groups if labels[:-1] not in found)
    if lacking:
        where = " and ".join(filter(None, lacking)) or file
        choice = ", ".join(dict.fromkeys(labels[-1] for labels in groups if labels))
        raise UserError(f'There is no baseline "{label}" for {where}; choose --baseline-label among {choice}.')
    return found


def _title(part: Report) -> str:
    return f"{part['names']['candidate']} against {part['names']['baseline']}"


def _figures(part: Report) -> Row:
    reduction, score = part["token_reduction"], part["aes"]["value"]
    return {
        "accuracy %": _percent(part["candidate"]["accuracy"]),
        "difference, points": _percent(part["accuracy_difference"]["value"], sign="+"),
        "fewer tokens, micro %": _percent(reduction["micro"]),
        "fewer tokens, signed macro %": _percent(reduction["macro"]),
        CLIPPED: _percent(reduction["clipped_macro"]),
        "AES (1, 3, 5)": "n/a" if score is None else f"{score:+.2f}",
    }


def _benchmark_rows(part: Report) -> list[Row]:
    before, after = part["baseline"]["tasks"], part["candidate"]["tasks"]
    return [
        {
            "benchmark": benchmark,
            "accuracy % before": _percent(before[benchmark]["accuracy"]),
            "accuracy % after": _percent(after[benchmark]["accuracy"]),
            "difference, points": _percent(row["accuracy_difference"]["value"], sign="+"),
            "mean tokens before": f"{before[benchmark]['mean_tokens']:,.0f}",
            "mean tokens after": f"{after[benchmark]['mean_tokens']:,.0f}",
            "fewer tokens, %": _percent(row["token_reduction"]["micro"]),
        }
        for benchmark, row in part["tasks"].items()
    ]


def _notes(report: Report) -> list[str]:
    return [report["note"], report["aggregation"]]


def _percent(share: float, *, sign: str = "") -> str:
    return f"{round(100 * share, 1) + 0.0:{sign}.1f}"  # + 0.0: no "-0.0"


def _print_table(console: Console, rows: Sequence[Row]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in rows[0]:
        text = column in TEXTS
        table.add_column(
            Text(SHORT.get(column, column)),
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
            min_width=12 if text else None,
        )
    for row in rows:
        table.add_row(*map(Text, row.values()))
    needed = console.measure(table, options=console.options.update_width(10_000)).minimum
    if needed > console.width:  # rich would cut digits off; a line that is too wide is wrapped by the terminal, whole
        table.width = needed
    console.print(table, crop=False)
    console.print()


def _markdown_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    rule = ["---" if column in TEXTS else "---:" for column in rows[0]]
    return [_markdown_row(cells) for cells in (rows[0], rule, *(row.values() for row in rows))]


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
