"""`tldr report --html FILE`: gathers what the page shows, and writes it as one file that needs no network.

Reads the question tables of both models and the results of every --run, results/{ratio.csv,schedule.json,train.json},
params.yaml and, where they are, what `stages.cli._flips` and `stages.cli._origins` reads. Writes FILE only.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._errors import UserError
from stages._io import write_text
from stages._params import Params, load_params
from stages.cli._comparison import reading
from stages.cli._project import TABLES, read_record

if TYPE_CHECKING:
    from stages.data.evaluations import Run

INSTALL = "pip install -e '.[html]'"
NUM_BINS = 32  # of the length histograms on the page
TINY_TASK = "tiny"
CHAINS = 60_000  # per length of the simulated frontier, as in `tldr tiny frontier`
RATIO_COLUMNS = (
    *("step", "short_share", "example_share", "token_share"),
    *("mean_tokens", "mean_tokens_se", "accuracy", "accuracy_se"),
)
SETTINGS = ("margin", "alpha", "confidence", "resamples", "seed")

Tables = dict[str, Any]


def write_html(root: Path, out: Path, runs: list[str]) -> None:
    """Write the page of the results in `root` to `out`; each of `runs` is LABEL=PATH of further results."""
    _require_packages()
    from stages.cli.report import build_report
    from stages.page.document import render_page

    if out.is_dir():
        raise UserError(f"{out} is a folder; give --html the name of a file.")
    named = [_split(run) for run in runs]
    report, params = build_report(root), load_params(root)
    base, candidate = (_open(root / name, root, params) for name in TABLES)
    others = {label: _compared(label, base, _open(path, root, params), report) for label, path in named}
    if len(others) < len(named):
        raise UserError("Two --run options have the same LABEL; give every run its own.")
    write_text(out, render_page(_content(root, report, base.tables, candidate.tables, others)))


def _require_packages() -> None:
    try:
        import jinja2
        import matplotlib
    except ModuleNotFoundError as error:
        raise UserError(f"The page needs the package {error.name}; install it with `{INSTALL}`.") from None
    del jinja2, matplotlib


def _content(root: Path, report: dict[str, Any], base: Tables, candidate: Tables, others: dict[str, Any]) -> Any:
    from stages.cli._flips import flip_section
    from stages.cli._origins import origins
    from stages.page.document import Content
    from stages.page.lengths import budget_chart, length_chart
    from stages.page.limits import limits
    from stages.page.pareto import pareto_chart

    params = load_params(root)
    sides = {"baseline": report["baseline"], "candidate": report["candidate"]}
    sides |= {label: compared["candidate"] for label, compared in others.items()}
    curves = report["budget_curve"]
    charts = {
        "pareto": pareto_chart(sides, _frontier(base), report["confidence"]),
        "ratio": _ratio(root, params),
        "lengths": length_chart(*_histograms(base, candidate)),
        "budget": budget_chart(curves["baseline"], curves["candidate"])
        if curves["baseline"]
        else "evaluate.budgets in params.yaml is empty, so there is no curve.",
    }
    return Content(
        report=report,
        charts=charts,
        runs=[_run_row(label, compared) for label, compared in others.items()],
        flips=flip_section(root, params, report, base, candidate),
        limits=limits(report, is_tiny=set(base) == {TINY_TASK}),
        origins=origins(root, params),
    )


def _split(run: str) -> tuple[str, Path]:
    label, equals, path = run.partition("=")
    if not equals or not label.strip() or not path:
        raise UserError(f"--run {run!r} is not LABEL=PATH; write it like --run static=results/static.csv.")
    if label in ("baseline", "candidate"):
        raise UserError(f"--run {run!r}: the label {label} is taken; choose another one.")
    return label, Path(path)


def _open(path: Path, root: Path, params: Params) -> Run:
    from stages.data.evaluations import open_run

    return open_run(str(path), root=root, settings=reading(params))


def _compared(label: str, base: Run, run: Run, report: Mapping[str, Any]) -> dict[str, Any]:
    """The run against the baseline, by the same rules as the candidate: same questions, same conditions."""
    from stages.evidence.comparability import mismatches
    from stages.evidence.summary import compare

    try:
        compared = compare(base.tables, run.tables, **{name: report[name] for name in SETTINGS})
    except ValueError as error:
        raise UserError(f"--run {label} cannot be shown beside the baseline: {error}.") from None
    for mismatch in mismatches(base.conditions, run.conditions, base.tables):
        raise UserError(f"--run {label} cannot be shown beside the baseline: {mismatch.sentence}")
    return compared


def _run_row(label: str, compared: Mapping[str, Any]) -> dict[str, str]:
    from stages.evidence.tables import TASK, VERDICT, overview

    row = overview(compared).rows[-1]
    return {"run": label, **{name: text for name, text in row.items() if name not in (TASK, VERDICT)}} | {
        VERDICT: row[VERDICT]
    }


def _frontier(base: Tables) -> list[tuple[float, float]]:
    """(mean tokens, accuracy) of the oracle frontier, if these are the questions that it is about."""
    from stages.tiny.chains import MAX_LENGTH
    from stages.tiny.policies import frontier, simulate

    groups = {f"length-{length}" for length in range(1, MAX_LENGTH + 1)}
    if set(base) != {TINY_TASK} or set(base[TINY_TASK].groups) != groups:
        return []
    hull = [policy for policy in frontier(simulate(CHAINS, seed=1)) if policy.reduction >= 0]
    return [(policy.mean_tokens, policy.accuracy) for policy in hull]


def _histograms(base: Tables, candidate: Tables) -> tuple[dict[str, Any], dict[str, Any]]:
    """By task, on bins that both models share."""
    from stages.evidence.figures import length_edges, length_histogram

    longest = {task: max(int(tables[task].tokens.max()) for tables in (base, candidate)) for task in base}
    edges = {task: length_edges(most, NUM_BINS) for task, most in longest.items()}
    before, after = (
        {task: length_histogram(tables[task], edges[task]) for task in base} for tables in (base, candidate)
    )
    return before, after


def _ratio(root: Path, params: Params) -> Any:
    """The chart of the ratio, or a sentence."""
    from stages.page.steering import ratio_chart

    path = root / "results" / "ratio.csv"
    if not path.is_file():
        return (
            "results/ratio.csv is not in this checkout, so there is no trajectory to show; `tldr repro train` makes it."
        )
    schedule, train = (read_record(root / "results" / f"{name}.json") for name in ("schedule", "train"))
    control = root / params.data.control.path
    num_questions = None
    if control.is_file():
        num_questions = sum(bool(line.strip()) for line in control.read_bytes().split(b"\n"))
    floor = params.ratio.floor if params.ratio.has_floor else None
    asked = params.ratio.control_questions if "scored" in train else None
    return ratio_chart(_ratio_rows(path), schedule, floor, train.get("selected_step"), num_questions, asked)


def _ratio_rows(path: Path) -> list[dict[str, float]]:
    again = "run `tldr repro --force train` to make it again"
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        lines = list(csv.DictReader(stream))
    if not lines:
        raise UserError(f"{path} has no rows; {again}.")
    return [_numbers(f"{path}, line {number}", line, again) for number, line in enumerate(lines, start=2)]


def _numbers(place: str, line: Mapping[str, str | None], again: str) -> dict[str, float]:
    row = {}
    for name in RATIO_COLUMNS:
        try:
            row[name] = float(line[name] or "")
        except (KeyError, ValueError):
            row[name] = math.nan
        if not math.isfinite(row[name]):
            raise UserError(f"{place}, field {name}: {line.get(name)!r} is not a number; {again}.")
    return row
