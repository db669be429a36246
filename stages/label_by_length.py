"""Stage `label-by-length`: grade the sampled answers and choose, by length among the correct ones, what is trained on.

Reads artifacts/samples.parquet, the four problem files and the tokenizer in model.path; writes
artifacts/labels/{system1,system2}.jsonl (chosen responses), artifacts/labels/grades.parquet (every response),
results/labels.json (metrics) and results/lengths.csv (histogram). Fails before writing if a problem is in two sets, the
verifier fails too often, or a set comes out empty. Run: `tldr run label-by-length`.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median
from typing import Any

from stages._errors import StageFailed
from stages._io import write_csv, write_json, write_jsonl
from stages._param_blocks import LabelParams
from stages._params import Params
from stages._provenance import place, provenance, write_provenance
from stages.core.answers import is_cut
from stages.core.labels import GradedResponse, Label, choose_system1, choose_system2, length_histogram, pass_rate
from stages.data.grades import Graded, Groups, close_id, grade_samples, write_grades
from stages.data.overlap import check_overlap, likeness
from stages.data.problems import read_problems
from stages.data.samples import check_samples, read_samples
from stages.engines.base import decode_spec

KEYS = ("seed", "model", "data", "decode", "container.engine", "container.device", "engine", "label")
SETS = ("system1", "system2", "control", "test")
SOURCES = ("system1", "system2")  # each source gives the role of the same name
MAX_NAMED = 5


Chosen = dict[str, list[tuple[Graded, Label]]]  # by role


def main(root: Path, params: Params) -> None:
    problems = {name: read_problems(root / getattr(params.data, name).path) for name in SETS}
    check_overlap(problems, likeness(params))
    sources = {name: problems[name] for name in SOURCES}
    samples = read_samples(root / "artifacts" / "samples.parquet", decode_spec(params).digest)
    check_samples(samples, sources, "samples.parquet")
    closing_id = close_id(root / params.model.path)
    groups = grade_samples(samples, sources, params.data.verifier, params.engine.processes, closing_id)
    check_error_rate(groups, params.label.max_verifier_error_rate)
    chosen = choose(groups, params.label)
    labels = root / "artifacts" / "labels"
    for role in SOURCES:
        write_jsonl(labels / f"{role}.jsonl", [_label_row(role, *pair) for pair in chosen[role]])
    write_grades(labels / "grades.parquet", groups)
    write_json(root / "results" / "labels.json", summary(groups, chosen, params.label) | place(params))
    write_csv(root / "results" / "lengths.csv", _histogram(chosen, params.label.histogram_bins))
    write_provenance(root, provenance(params, "label-by-length", KEYS, __file__), "label-by-length")


def check_error_rate(groups: Groups, limit: float) -> None:
    """StageFailed if the verifier gave no verdict on more than `limit` of all responses."""
    every = _flat(groups)
    failed = [graded.sample for graded in every if graded.grade.error]
    if len(failed) > limit * len(every):
        named = ", ".join(f"{s.source}:{s.problem_id} answer {s.sample_index}" for s in failed[:MAX_NAMED])
        raise StageFailed(
            f"The verifier gave no verdict on {len(failed)} of {len(every)} responses ({len(failed) / len(every):.2%}, "
            f"limit {limit:.2%}), first: {named}; correct the gold answers of these problems, or raise "
            "label.max_verifier_error_rate."
        )


def choose(groups: Groups, label: LabelParams) -> Chosen:
    """The chosen responses of each role, in the order of the problem file; StageFailed if a role gets none."""
    guards = {"min_tokens": label.min_tokens, "min_thought_tokens": label.min_thought_tokens}
    chosen: Chosen = {role: [] for role in SOURCES}
    for role in SOURCES:
        for answers in groups[role]:
            responses = [graded.response for graded in answers]
            if role == "system1":
                labels = choose_system1(responses, **guards)
            else:
                labels = choose_system2(responses, label.system2_choice, **guards)
            by_index = {graded.sample.sample_index: graded for graded in answers}
            chosen[role] += [(by_index[one.response.sample_index], one) for one in labels]
        if not chosen[role]:
            raise StageFailed(_empty_message(role, groups[role], label))
    return chosen


def _empty_message(role: str, answers: list[list[Graded]], label: LabelParams) -> str:
    num_responses = sum(len(rows) for rows in answers)
    num_correct = sum(graded.grade.correct for rows in answers for graded in rows)
    start = f"The {role.replace('system', 'System-')} set is empty: of {num_responses} answers "
    if num_correct == 0:
        return (
            f"{start}none is correct; take easier prompts in data.{role}.path, check their gold answers and "
            "data.verifier, or raise sample.samples_per_problem or decode.max_tokens."
        )
    return (
        f"{start}{num_correct} are correct but too short; lower label.min_tokens ({label.min_tokens}) or "
        f"label.min_thought_tokens ({label.min_thought_tokens})."
    )


def summary(groups: Groups, chosen: Chosen, label: LabelParams) -> dict[str, Any]:
    """Counts and rates, overall and per source; every answer that was not chosen is in one of the counts."""
    every = _flat(groups)
    result: dict[str, Any] = {
        "num_responses": len(every),
        "verifier_error_rate": fmean(graded.grade.error for graded in every),
    }
    for source in SOURCES:
        result[source] = _source_summary(groups[source], chosen[source], label)
    return result


def _source_summary(
    problems: list[list[Graded]], chosen: list[tuple[Graded, Label]], label: LabelParams
) -> dict[str, Any]:
    """`left_out` counts correct answers by the first guard that refused them, `not_chosen` the usable rest."""
    every = [graded for answers in problems for graded in answers]
    left_out = {"no_reasoning": 0, "min_tokens": 0, "min_thought_tokens": 0}
    for graded in every:
        guard = _refusing_guard(graded.response, label)
        if graded.grade.correct and guard is not None:
            left_out[guard] += 1
    num_correct = sum(graded.grade.correct for graded in every)
    lengths = [graded.sample.num_tokens for graded, _ in chosen]
    return {
        "num_problems": len(problems),
        "num_responses": len(every),
        "pass_rate": fmean(pass_rate([graded.response for graded in answers]) for answers in problems),
        "truncation_rate": fmean(is_cut(graded.sample.finish_reason) for graded in every),
        "verifier_error_rate": fmean(graded.grade.error for graded in every),
        "num_problems_without_correct": sum(not any(g.grade.correct for g in answers) for answers in problems),
        "num_problems_chosen": len({graded.sample.problem_id for graded, _ in chosen}),
        "num_correct": num_correct,
        "left_out": left_out,
        "not_chosen": num_correct - sum(left_out.values()) - len(chosen),
        "num_chosen": len(chosen),
        "mean_tokens": fmean(lengths),
        "median_tokens": median(lengths),
        "min_tokens": min(lengths),
        "max_tokens": max(lengths),
    }


def _refusing_guard(response: GradedResponse, label: LabelParams) -> str | None:
    if not response.has_reasoning:
        return "no_reasoning"
    if response.num_tokens < label.min_tokens:
        return "min_tokens"
    return "min_thought_tokens" if response.num_thought_tokens < label.min_thought_tokens else None


def _histogram(chosen: Chosen, num_bins: int) -> list[dict[str, Any]]:
    """One row per role and bin; both roles share the bins."""
    lengths = {role: [graded.sample.num_tokens for graded, _ in pairs] for role, pairs in chosen.items()}
    longest = max(max(values) for values in lengths.values())
    return [
        {"role": role, "lower": lower, "upper": upper, "count": count}
        for role, values in lengths.items()
        for lower, upper, count in length_histogram(values, num_bins, longest)
    ]


def _label_row(role: str, graded: Graded, label: Label) -> dict[str, Any]:
    sample = graded.sample
    return {
        "problem_id": sample.problem_id,
        "role": role,
        "sample_index": sample.sample_index,
        "prompt_ids": sample.prompt_ids,
        "token_ids": sample.token_ids,
        "num_tokens": sample.num_tokens,
        "pass_rate": label.pass_rate,
        "rank": label.rank,
    }


def _flat(groups: Groups) -> list[Graded]:
    return [graded for problems in groups.values() for answers in problems for graded in answers]
