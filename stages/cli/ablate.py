"""`tldr ablate tune | report | table`: ways to move the ratio, compared at equal compute on the tiny task.

Reads ablation.yaml, the committed state and .tldr/ablation/; writes .tldr/ablation/<code state>/ and, from what is stored
there, docs/ablation.md and docs/ablation.svg. What is done is not run again; a stopped ablation goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages._errors import UserError
from stages.cli._project import project_root

if TYPE_CHECKING:
    from stages.ablation.plan import Plan
    from stages.cli._ablation_runs import Run
    from stages.cli._ablation_state import State
    from stages.data.problems import Problem

PLAN = click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Another plan than ablation.yaml of the checkout."
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="List the runs that are missing, and run none.")


@click.group("ablate")
def command() -> None:
    """Compare ways to move the ratio, at equal compute, on the tiny task."""


@command.command("tune")
@PLAN
@DRY_RUN
def tune_command(plan_file: Path | None, dry_run: bool) -> None:
    """Train with every tuning seed; the control set chooses the variants and the best static share.

    Only the arms that this chooses among are trained: fixed shares and variants of ablation.yaml. Ends as `table` does.
    """
    state, plan, fresh = prepare(plan_file, clean=not dry_run)
    execute(state, plan, fresh, "tune", plan.tuned, dry_run=dry_run)


@command.command("report")
@PLAN
@DRY_RUN
@click.option("--allow-missing", is_flag=True, help="Go on although tuning runs are missing.")
def report_command(plan_file: Path | None, dry_run: bool, allow_missing: bool) -> None:
    """Run the whole pipeline for every arm and reporting seed, with a fresh test set. Ends as `table` does."""
    from stages.cli._ablation_page import reported
    from stages.cli._ablation_runs import missing, planned

    state, plan, fresh = prepare(plan_file, clean=not dry_run)
    untuned = missing(state, planned(state, plan, "tune", plan.tuned, fresh))
    if untuned and not allow_missing and not dry_run:
        are = "is" if len(untuned) == 1 else "are"
        raise UserError(
            f"{counted(len(untuned), 'tuning run')} {are} missing (first {untuned[0].label}), and tuning chooses the variants "
            "and the best static share; run `tldr ablate tune`, or add --allow-missing."
        )
    execute(state, plan, fresh, "report", reported(state, plan), dry_run=dry_run)


@command.command("table")
@PLAN
def table_command(plan_file: Path | None) -> None:
    """Write docs/ablation.md and docs/ablation.svg from the runs that are stored."""
    from stages.cli._ablation_page import write_page

    write_page(*prepare(plan_file, clean=False))


def prepare(plan_file: Path | None, *, clean: bool) -> tuple[State, Plan, list[Problem]]:
    """The committed state, the plan and the fresh test set; UserError if the ablation cannot run here, or with `clean` if
    what is here is not what is committed."""
    import importlib.util

    from stages.ablation.fresh_test import fresh_test
    from stages.ablation.plan import FILE, load_plan
    from stages.cli._ablation_state import read_state
    from stages.cli._dvc import check_repository
    from stages.cli._html import INSTALL
    from stages.data.overlap import likeness
    from stages.data.problems import read_problems

    root = project_root()
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"The figure needs the package matplotlib; install it with `{INSTALL}`.")
    check_repository(root, experiment=False)
    state = read_state(root, clean=clean)
    plan = load_plan(root / FILE if plan_file is None else plan_file, state.document)
    data = state.params.data
    sets = {name: read_problems(root / getattr(data, name).path) for name in ("system1", "system2", "control", "test")}
    return state, plan, fresh_test(sets, plan.test_seed, likeness(state.params))


def execute(state: State, plan: Plan, fresh: list[Problem], phase: str, arms: Sequence[str], *, dry_run: bool) -> None:
    """Run what is missing of the phase, and write the page; with `dry_run` say what would run."""
    from stages.cli._ablation_page import write_page
    from stages.cli._ablation_runs import missing, planned, run_all
    from stages.cli._ablation_state import only_one, other_states, remove_clones
    from stages.cli.repro import check_engine
    from stages.cli.run import stopped_by_sigterm

    runs = planned(state, plan, phase, arms, fresh)
    left = missing(state, runs)
    say(f"{phase}: {len(left)} of {len(runs)} runs are missing, code state {state.name}.")
    if others := other_states(state):
        say(f"There are runs of {', '.join(others)} as well; runs of different code states are never mixed.")
    if dry_run:
        list_missing(state, left, plan.jobs)
        return
    check_engine(state.root, (), force=True)
    with only_one(state.root) as lock, stopped_by_sigterm():
        remove_clones(state)
        try:
            run_all(state, plan, left, fresh, lock, say)
        finally:
            remove_clones(state)
    write_page(state, plan, fresh)


def list_missing(state: State, left: Sequence[Run], jobs: int) -> None:
    """One line each on standard output; how long they take is said only from runs of the same kind that were measured."""
    from stages.ablation.results import SHARED, records

    for run in left:
        click.echo(run.label)
    arms = [run for run in left if run.arm != SHARED]
    measured = [
        record["seconds"]
        for record in records(state.folder)
        if arms and record["phase"] == arms[0].phase and record["arm"] != SHARED
    ]
    if measured:
        mean = sum(measured) / len(measured)
        of = "an arm" if len(measured) == 1 else "arms"
        say(
            f"{counted(len(measured), 'run')} of {of} took {mean:.0f} s on average; {len(arms)} more at {jobs} a time would "
            f"take {len(arms) * mean / jobs / 60:.0f} minutes at that pace, shared stages not counted."
        )


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def say(text: Any) -> None:
    click.echo(text, err=True)
