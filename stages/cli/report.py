"""`tldr report`: the compressed model against its base, from the question tables that git tracks.

Reads results/questions/{base,candidate}.csv, results/train.json and params.yaml (evaluate, container, seed); writes
.tldr/report.json, a copy that saves the bootstrap the next time. Works on a fresh clone, without the model.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import click

from stages._errors import UserError
from stages._io import digest, file_digest, read_json, write_json
from stages._params import Params, load_params
from stages.cli._project import TABLES, project_root, read_record, read_state

MODEL = "artifacts/model"
EVIDENCE = Path(__file__).resolve().parents[1] / "evidence"


@click.command("report")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write one HTML page with figures, flips and provenance to FILE; it needs no network.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="LABEL=PATH",
    help="With --html: further results on the same questions, drawn beside the two models; repeatable.",
)
def command(as_json: bool, as_markdown: bool, page: Path | None, runs: tuple[str, ...]) -> None:
    """Compare the compressed model with its base: accuracy, tokens, intervals and a verdict.

    Both models answered the same test questions; margin, level and resamples are evaluate.* in params.yaml.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other.")
    if page is not None and (as_json or as_markdown):
        raise click.UsageError("--html excludes --json and --markdown.")
    if runs and page is None:
        raise click.UsageError("--run goes with --html FILE.")
    root = project_root()
    if page is not None:
        from stages.cli._html import write_html

        write_html(root, page, list(runs))
        click.echo(f"Wrote {page}.", err=True)
        return
    if not as_json and not as_markdown:
        show_report(root)
        return
    report = build_report(root)
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from stages.evidence.report import markdown

    click.echo(markdown(report), nl=False)


def show_report(root: Path) -> None:
    """The table on standard output, as wide as the terminal."""
    report = build_report(root)
    from rich.console import Console

    from stages.evidence.report import render

    console = Console()
    render(report, console=console)
    container = report["container"]
    place = f"container engine {container['engine']}, device {container['device']}, image {short(container['image'])}"
    where = f"Profile {report['profile']}, {place}."
    console.print(where, highlight=False)


def build_report(root: Path) -> dict[str, Any]:
    """The comparison with `model`, `container` and `profile`; UserError if a result is missing or malformed."""
    params = load_params(root)
    report = compared(root, params)
    train = read_json(root / "results" / "train.json", "tldr repro train")
    return {
        **report,
        "profile": params.profile,
        "model": {
            **_model_place(root),
            "selected_step": train.get("selected_step"),
            "selection_fallback": train.get("selection_fallback"),
        },
        "container": _places(root, train),
    }


def _places(root: Path, train: dict[str, Any]) -> dict[str, str]:
    """Engine, device and image of the training and of both evaluations; where they differ, every one of them."""
    results = [train, *(read_record(root / "results" / f"{name}.json") for name in ("base", "metrics"))]
    return {
        name: " and ".join(sorted({_said(result, f"container_{name}") for result in results}))
        for name in ("engine", "device", "image")
    }


def short(images: str) -> str:
    """Digests cut to the length of an image's tag."""
    return re.sub(r"@sha256:([0-9a-f]{12})[0-9a-f]*", r":\1", images)


def _said(result: dict[str, Any], key: str) -> str:
    return str(result[key] or "none") if key in result else "not recorded"


def _model_place(root: Path) -> dict[str, str]:
    if (root / MODEL).is_dir():
        return {"path": MODEL, "serve_command": f"vllm serve {MODEL}"}
    return {"path": f"{MODEL} is not in this checkout; `tldr repro` makes it"}


def compared(root: Path, params: Params) -> dict[str, Any]:
    """`evidence.summary.compare` of the two tables with `budget_curve`, {baseline, candidate}, of both; taken from
    .tldr/report.json if nothing that it depends on changed."""
    missing = [name for name in TABLES if not (root / name).is_file()]
    if missing:
        raise UserError(f"{' and '.join(missing)} not found; run `tldr repro` to evaluate both models.")
    evaluate = params.evaluate
    settings: dict[str, Any] = {
        "margin": evaluate.margin,
        "alpha": evaluate.alpha,
        "confidence": evaluate.confidence,
        "resamples": evaluate.resamples,
        "seed": params.seed,
    }
    inputs = [*(root / name for name in TABLES), *sorted(EVIDENCE.glob("*.py"))]
    key = digest(
        {"settings": settings, "budgets": params.budgets, "files": {path.name: file_digest(path) for path in inputs}}
    )
    kept = read_state(root, "report")
    if kept.get("key") == key and isinstance(kept.get("report"), dict):
        return dict(kept["report"])
    report = _compare(root, settings, params.budgets)
    with contextlib.suppress(OSError):  # a checkout that cannot be written to can still be reported on
        write_json(root / ".tldr" / "report.json", {"key": key, "report": report})
    return report


def _compare(root: Path, settings: dict[str, Any], budgets: list[int]) -> dict[str, Any]:
    try:
        from stages.evidence.budget import budget_curve
        from stages.evidence.estimates import question_tables
        from stages.evidence.questions import read_questions
        from stages.evidence.summary import compare

        base, candidate = (question_tables(read_questions(root / name)) for name in TABLES)
        curves = {"baseline": budget_curve(base, budgets), "candidate": budget_curve(candidate, budgets)}
        return compare(base, candidate, **settings) | {"budget_curve": curves}
    except ValueError as error:
        raise UserError(f"The results cannot be compared: {error}; run `tldr repro --force evaluate`.") from None
