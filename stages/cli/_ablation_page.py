"""docs/ablation.md and docs/ablation.svg from the stored runs of one code state.

Reads <state>/{tune,report}/<arm>/<seed>/ of the arms and seeds of the plan; a run made with other settings is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from stages._errors import UserError
from stages._io import write_text
from stages._params import Params
from stages.ablation.document import document, facts_of
from stages.ablation.fresh_test import num_known
from stages.ablation.plan import Plan
from stages.ablation.results import SHARED, read_tested, read_trained, records, run_folder
from stages.ablation.statistics import reported_arms
from stages.ablation.tables import Content
from stages.cli._ablation_runs import is_done, planned
from stages.cli._ablation_state import OUTPUTS, State, other_states
from stages.data.problems import Problem, read_problems
from stages.training.screening import num_asked

if TYPE_CHECKING:
    from pathlib import Path


def reported(state: State, plan: Plan) -> list[str]:
    """The arms to report, as the stored tuning runs choose them."""
    return reported_arms(list(plan.arms), plan.variants, _stored(state, plan, "tune", [], read_trained))


def write_page(state: State, plan: Plan, fresh: list[Problem]) -> None:
    """UserError if nothing is stored of this code state."""
    from stages.ablation.figure import figure
    from stages.tiny.policies import frontier, oracle, simulate

    tuned = _stored(state, plan, "tune", [], read_trained)
    tested = _stored(state, plan, "report", fresh, read_tested)
    if not tuned and not tested:
        raise UserError(_nothing(state))
    outcomes = simulate(plan.frontier.chains, plan.frontier.seed)
    evaluate = state.params.evaluate
    facts = _facts(state, plan, fresh)
    content = Content(plan, tuned, tested, oracle(outcomes), facts, evaluate.confidence, evaluate.margin)
    if content.shown:
        kinds = {arm: kind_of(plan, arm) for arm in content.shown}
        hull = [policy for policy in frontier(outcomes) if policy.reduction >= 0]
        write_text(state.root / OUTPUTS[1], figure(content.shown, kinds, hull, evaluate.confidence))
    write_text(state.root / OUTPUTS[0], document(content))
    click.echo(f"Wrote {' and '.join(OUTPUTS if content.shown else OUTPUTS[:1])}.", err=True)


def kind_of(plan: Plan, arm: str) -> str:
    return "static" if arm in plan.static else "dynamic" if arm in plan.dynamic else "scheduled"


def _stored(
    state: State, plan: Plan, phase: str, fresh: Sequence[Problem], read: Callable[[Path], Any]
) -> dict[str, dict[int, Any]]:
    """What `read` makes of every run of the phase that is done, by arm and seed."""
    found: dict[str, dict[int, Any]] = {}
    for run in planned(state, plan, phase, list(plan.arms), fresh):
        if run.arm != SHARED and is_done(state, run):
            found.setdefault(run.arm, {})[run.seed] = read(run_folder(state.folder, phase, run.arm, run.seed))
    return found


def _nothing(state: State) -> str:
    others = other_states(state)
    there = f"; there are runs of {', '.join(others)}, which are never mixed with it" if others else ""
    return f"No run of the committed code state {state.name} is stored{there}. Run `tldr ablate tune`."


def _facts(state: State, plan: Plan, fresh: Sequence[Problem]) -> list[str]:
    params, stored = state.params, list(records(state.folder))
    known = num_known(fresh, read_problems(state.root / params.data.test.path))
    num_control = len(read_problems(state.root / params.data.control.path))
    commits = sorted({record["commit"][:7] for record in stored})
    return [
        f"Profile `{params.profile}`, commit {', '.join(commits)}, code state {state.name} (a digest of what the stages read).",
        f"Alike for all arms: {params.train.max_steps} steps of {params.train.batch_size} examples, a control evaluation every "
        f"{params.train.update_every} steps ({_asked(params, num_control)}), the checkpoint by the rule of `select`; an arm "
        "sets keys of `ratio` only.",
        f"Each run: `engine.processes` {plan.engine.processes}, `engine.threads` {plan.engine.threads}.",
        f"Tuning seeds {_listed(plan.tune_seeds)}, reporting seeds {_listed(plan.report_seeds)}.",
        f"Fresh test set: {len(fresh):,} chains from seed {plan.test_seed}, as many of each length as in "
        f"`{params.data.test.path}`, {params.evaluate.samples} answers each. It has nothing in common with the sets that train "
        f"and steer; {known} chains of one operation, of which there are only 352, are in the committed test set too.",
        *(fact for phase in ("tune", "report") for fact in facts_of(stored, phase, plan.jobs)),
        f"Oracle and frontier: {plan.frontier.chains:,} simulated chains per length, without a model (`tldr tiny frontier`).",
    ]


def _asked(params: Params, num_control: int) -> str:
    samples, asked = params.ratio.control_samples, num_asked(params, num_control)
    if asked == num_control:
        return f"all questions, {samples} answers each"
    chosen = f"the whole set is answered by at most {params.select.candidates} checkpoints"
    return f"{asked} questions, {samples} answers each; {chosen}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
