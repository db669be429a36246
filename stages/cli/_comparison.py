"""Two or more sets of results become one report: read, checked for the same conditions, compared.

Reads the files that are named and evaluate.* and seed of the checkout's params.yaml; prints nothing. `tldr compare` prints
the report.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._errors import UserError
from stages._params import Params, load_params
from stages.cli._project import project_root

if TYPE_CHECKING:
    from stages.data.evaluations import ReadSettings, Run

PAIRED = ("task", "question_id", "sample_index", "group")  # what both runs must have alike
HERE = Path(__file__).resolve().parents[2]  # whose params.yaml holds outside a checkout


@dataclass(frozen=True)
class Options:
    """Numbers given on the command line; None is what params.yaml says."""

    margin: float | None = None
    alpha: float | None = None
    confidence: float | None = None
    resamples: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """A baseline (of the git revision `rev`, if given) and one candidate or several training runs of it."""

    baseline: str
    candidates: tuple[str, ...]
    rev: str | None
    allow_mismatch: bool
    verifier: str
    options: Options


def checkout_root() -> Path | None:
    """The checkout that the command is called in, None outside one."""
    try:
        return project_root()
    except UserError:
        return None


def settings(params: Params, options: Options) -> dict[str, Any]:
    """Keyword arguments of `evidence.summary.compare`."""
    evaluate = params.evaluate
    known = {
        "margin": evaluate.margin,
        "alpha": evaluate.alpha,
        "confidence": evaluate.confidence,
        "resamples": evaluate.resamples,
        "seed": params.seed,
    }
    return known | {name: value for name, value in asdict(options).items() if value is not None}


def reading(params: Params, verifier: str | None = None) -> ReadSettings:
    """How answers without verdicts are graded: as params.yaml says, but for another `verifier`."""
    from stages.data.evaluations import ReadSettings

    return ReadSettings(verifier or params.data.verifier, params.engine.processes, params.label.max_verifier_error_rate)


def compare_files(request: Request, *, flips: bool = False) -> dict[str, Any]:
    """The report with `names` and `mismatches`; UserError where a file cannot be read or the runs not be compared."""
    from stages.evidence.pairing import pair_tasks
    from stages.evidence.seeds import compare_runs
    from stages.evidence.summary import compare

    root = checkout_root()
    params = load_params(HERE if root is None else root)
    keywords = settings(params, request.options)
    base, candidates = _open(request, root, reading(params, request.verifier))
    try:  # before the conditions: of other questions the prompts differ too, but that is not what is wrong
        for run in candidates:
            pair_tasks(base.tables, run.tables, allow_mismatch=request.allow_mismatch)
    except ValueError as error:
        raise _refusal(request, error) from None
    sentences = check_conditions(base, candidates, request.allow_mismatch)
    keywords["length_unit"] = base.conditions.length_unit

    def once(before: Any, after: Any, allow_mismatch: bool) -> dict[str, Any]:
        return compare(before, after, allow_mismatch=allow_mismatch, **keywords)

    try:
        if len(candidates) == 1:
            report = once(base.tables, candidates[0].tables, request.allow_mismatch)
        else:
            tables = {run.name: run.tables for run in candidates}
            report = compare_runs(base.tables, tables, once, request.allow_mismatch)
        if flips:
            report["flips"] = _flips(base, candidates, request.allow_mismatch)
    except ValueError as error:
        raise _refusal(request, error) from None
    report["mismatches"] = [*sentences, *report["mismatches"]]
    report["remarks"] = [note for run in (base, *candidates) for note in run.notes]
    return {**report, "names": {"baseline": base.name, "candidate": [run.name for run in candidates]}}


def _open(request: Request, root: Path | None, how: ReadSettings) -> tuple[Run, list[Run]]:
    from stages.data.evaluations import open_run

    twice = sorted({name for name in request.candidates if request.candidates.count(name) > 1})
    if twice:
        raise UserError(f"The candidate {twice[0]} is given twice; name a different file for each training run.")
    base = open_run(request.baseline, root=root, rev=request.rev, settings=how)
    return base, [open_run(spec, root=root, settings=how) for spec in request.candidates]


def check_conditions(base: Run, candidates: list[Run], allow_mismatch: bool) -> list[str]:
    """Sentences on conditions that differ; UserError with the first of them unless that is allowed."""
    from stages.evidence.comparability import mismatches

    found = []
    for run in candidates:
        units = (base.conditions.length_unit, run.conditions.length_unit)
        if len(set(units)) > 1:  # whatever is allowed: a ratio of words to tokens looks like a reduction
            raise UserError(
                f"{base.name} counts {units[0]} and {run.name} {units[1]}, which have no ratio; write num_tokens into both "
                "files or into neither."
            )
        tasks = [task for task in base.tables if task in run.tables]
        found += [mismatch.sentence for mismatch in mismatches(base.conditions, run.conditions, tasks)]
    sentences = list(dict.fromkeys(found))
    if sentences and not allow_mismatch:
        raise UserError(f"{sentences[0]} Measure both alike, or compare them all the same with --allow-mismatch.")
    return sentences


def _refusal(request: Request, error: ValueError) -> UserError:
    field = str(error).partition(":")[0]
    step = "name results of the same questions"
    if field in asdict(request.options):
        step = f"correct --{field}"
    elif field in PAIRED and not request.allow_mismatch and "in common" not in str(error):
        step = "--allow-mismatch compares what they share"
    return UserError(f"The two cannot be compared: {error}; {step}.")


def _flips(base: Run, candidates: list[Run], allow_mismatch: bool) -> list[dict[str, Any]]:
    """One row per question and run whose share of correct answers changed, largest changes first."""
    from stages.evidence.figures import flips

    return [
        {
            "candidate": run.name,
            "task": flip.task,
            "group": flip.group,
            "question_id": flip.question_id,
            "before": flip.before,
            "after": flip.after,
            "num_samples": flip.num_samples,
            "kind": flip.kind,
        }
        for run in candidates
        for flip in flips(base.tables, run.tables, allow_mismatch=allow_mismatch)
    ]
