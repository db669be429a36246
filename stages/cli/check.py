"""`tldr check`: the gate for continuous integration. Has a model regressed against a baseline, by the policy?

    tldr check --baseline main --junit gate.xml

Reads the policy, the results of both models (files of any kind that `stages.data.evaluations` reads, or a git revision) and,
in a checkout, params.yaml (data.verifier and engine.processes, for answers that carry no verdict). Writes the files it is
asked for. How it ends is in `stages.cli._gate_end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages._errors import UserError
from stages.cli._gate_end import Ending, Sinks, Unusable, conclude
from stages.cli._gate_inputs import POLICY, read_policy, read_runs
from stages.cli._project import CANDIDATE, project_root

if TYPE_CHECKING:
    from stages.data.evaluations import Run
    from stages.evidence.estimates import QuestionTable
    from stages.evidence.policy import Policy

LEVELS = ("alpha", "confidence", "resamples", "seed")


@click.command("check")
@click.option("--baseline", required=True, metavar="REV|FILE", help="What the candidate must not fall behind.")
@click.option("--candidate", metavar="FILE", help=f"Results to check; {CANDIDATE} of the checkout if not given.")
@click.option("--policy", metavar="FILE", help=f"Limits and levels; {POLICY} of the checkout if not given.")
@click.option("--strict", is_flag=True, help="An inconclusive gate ends with code 3 instead of 0.")
@click.option("--junit", metavar="FILE", help="Write JUnit XML.")
@click.option("--json", "as_json", metavar="[FILE]", is_flag=False, flag_value="-", help="Write JSON, or print it.")
@click.option("--markdown", metavar="FILE", help="Write Markdown.")
@click.option("--allow-mismatch", is_flag=True, help="Compare what was measured under different conditions.")
def command(
    baseline: str,
    candidate: str | None,
    policy: str | None,
    strict: bool,
    junit: str | None,
    as_json: str | None,
    markdown: str | None,
    allow_mismatch: bool,
) -> None:
    """Fail on a regression against a baseline: the gate for continuous integration.

    REV is a git revision in which git tracks the candidate's file, FILE any results that `tldr compare` reads. Accuracy,
    length, truncation and missing thoughts are judged per benchmark by the policy; docs/gate.md states the rules.

    \b
    Exit codes:
      0    pass, or inconclusive without --strict
      1    a regression is shown
      2    wrong usage, also a policy with a wrong key or value
      3    inconclusive, with --strict
      4    missing, unreadable or incomparable: a file, a revision, a required
           benchmark; or an output that could not be written
      70   a bug, no memory, a full disk: nothing was decided
      130  Ctrl-C
    """
    if "" in (junit, as_json, markdown):
        raise click.UsageError("An output file has an empty name; is a variable not set?")
    sinks = Sinks(junit=junit, json=as_json, markdown=markdown)
    with Ending(sinks):
        conclude(check(baseline, candidate, policy, allow_mismatch), strict, sinks)


def check(baseline: str, candidate: str | None, policy_file: str | None, allow_mismatch: bool) -> dict[str, Any]:
    """The result that is shown and written; Unusable or UserError where nothing can be decided."""
    try:
        root: Path | None = project_root()
    except UserError:
        root = None
    policy, policy_name = read_policy(root, policy_file)
    runs = read_runs(root, baseline, candidate)
    before, after = runs
    common = [name for name in before.tables if name in after.tables]
    if not common:
        raise Unusable(
            f"{before.name} and {after.name} have no benchmark in common (baseline: {', '.join(before.tables)}; "
            f"candidate: {', '.join(after.tables)}); evaluate both on the same tasks."
        )
    missing = policy.missing(common)
    if missing:
        raise Unusable(
            f"{', '.join(missing)}: required by {policy_name}, but not in both results; evaluate both on it."
        )
    mismatches = _mismatches(runs, common, allow_mismatch)
    result = _decided(runs, common, policy, mismatches, allow_mismatch)
    return {
        **result,
        "notes": [*result["notes"], *_notes(runs, common)],
        "baseline": {"name": before.name},
        "candidate": {"name": after.name},
        "policy": {"name": policy_name, **{key: getattr(policy, key) for key in LEVELS}},
        "length_unit": after.conditions.length_unit,
    }


def _notes(runs: tuple[Run, Run], common: list[str]) -> list[str]:
    before, after = (run.tables for run in runs)
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    notes += [
        f"{name} is only in the candidate: there is nothing to compare it with." for name in after if name not in before
    ]
    if all(_same(before[name], after[name]) for name in common):
        notes.append("Every answer has the length and the verdict of the baseline's: it may be the same model.")
    return notes


def _same(before: QuestionTable, after: QuestionTable) -> bool:
    import numpy as np

    return np.array_equal(before.tokens, after.tokens) and np.array_equal(before.correct, after.correct)


def _mismatches(runs: tuple[Run, Run], common: list[str], allow_mismatch: bool) -> list[str]:
    from stages.evidence.comparability import mismatches

    found = [each.sentence for each in mismatches(runs[0].conditions, runs[1].conditions, common)]
    if found and not allow_mismatch:
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        raise Unusable(f"{found[0]}{more} Evaluate both alike, or compare all the same with --allow-mismatch.")
    return found


def _decided(
    runs: tuple[Run, Run], common: list[str], policy: Policy, mismatches: list[str], allow_mismatch: bool
) -> dict[str, Any]:
    """`evidence.gate.decide` with the `mismatches` of the conditions and of the questions."""
    from stages.evidence.gate import decide

    before, after = (run.tables for run in runs)
    try:
        reports = {name: _compared(name, before[name], after[name], policy, allow_mismatch) for name in common}
    except ValueError as error:
        shared = str(error).partition(":")[0] in ("question_id", "sample_index", "group")
        hint = "; --allow-mismatch compares what both have" if shared else ""
        raise Unusable(f"{runs[0].name} and {runs[1].name} cannot be compared: {error}{hint}.") from None
    if runs[0].conditions.length_unit != runs[1].conditions.length_unit:  # words over tokens say nothing
        nothing = {"token_reduction": {"micro": None, "ci": None}}
        reports = {name: {**report, **nothing} for name, report in reports.items()}
    result = decide(reports, after, policy, only_baseline=[name for name in before if name not in after])
    differing = [text for report in reports.values() for text in report["mismatches"]]
    return {**result, "mismatches": mismatches + differing}


def _compared(
    name: str, before: QuestionTable, after: QuestionTable, policy: Policy, allow_mismatch: bool
) -> Mapping[str, Any]:
    """One benchmark alone; without its groups, as each would cost a bootstrap of its own."""
    from stages.evidence.summary import compare

    base, candidate = ({name: replace(table, groups=("",) * table.num_questions)} for table in (before, after))
    return compare(
        base,
        candidate,
        margin=policy.rules(name).accuracy_margin,
        alpha=policy.alpha,
        confidence=policy.confidence,
        resamples=policy.resamples,
        seed=policy.seed,
        allow_mismatch=allow_mismatch,
    )
