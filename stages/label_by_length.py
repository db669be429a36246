"""Stage `label-by-length`: grade the sampled answers and choose, by length among the correct ones, what is trained on.

Reads artifacts/samples.parquet, the four problem files and the tokenizer in model.path; writes
artifacts/labels/{system1,system2}.jsonl (chosen responses), artifacts/labels/grades.parquet (every response),
results/labels.json (metrics) and results/lengths.csv (histogram). Fails before writing if a problem is in two sets, the
verifier fails too often, or a set comes out empty. The answers go by, problem after problem; only counts and the lengths of
chosen ones are kept. Run: `tldr run label-by-length`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages._io import json_line, whole_folder, write_csv, write_json
from stages._param_blocks import LabelParams
from stages._params import Params
from stages._provenance import place, provenance, write_provenance
from stages.core.labels import Label, choose_system1, choose_system2, length_histogram
from stages.data.grades import Graded, GradesFile, close_id, graded_problems
from stages.data.label_counts import FEW, LabelCounts
from stages.data.overlap import check_overlap, likeness
from stages.data.problems import read_problems
from stages.data.samples import check_keys, read_batches, read_keys
from stages.engines.base import decode_spec

KEYS = ("seed", "model", "data", "decode", "container.engine", "container.device", "engine", "label")
SETS = ("system1", "system2", "control", "test")
SOURCES = ("system1", "system2")  # each source gives the role of the same name

Chosen = list[tuple[Graded, Label]]
Counts = Mapping[str, LabelCounts]  # by role


def main(root: Path, params: Params) -> None:
    problems = {name: read_problems(root / getattr(params.data, name).path) for name in SETS}
    check_overlap(problems, likeness(params))
    sources = {name: problems[name] for name in SOURCES}
    path, digest = root / "artifacts" / "samples.parquet", decode_spec(params).digest
    order = check_keys(read_keys(path, digest), sources, path.name)
    batches = read_batches(path, digest, order=order)
    closing_id = close_id(root / params.model.path)
    graded = graded_problems(batches, sources, params.data.verifier, params.engine.processes, closing_id)
    with whole_folder(root / "artifacts" / "labels") as labels, closing(graded):
        counts = write_labels(labels, graded, params.label)
        check_error_rate(counts, params.label.max_verifier_error_rate)
        check_not_empty(counts, params.label)
    write_json(root / "results" / "labels.json", summary(counts) | place(params))
    write_csv(root / "results" / "lengths.csv", _histogram(counts, params.label.histogram_bins))
    write_provenance(root, provenance(params, "label-by-length", KEYS, __file__), "label-by-length")


def write_labels(folder: Path, graded: Iterable[list[Graded]], label: LabelParams) -> Counts:
    """Grades and chosen responses, problem by problem, into `folder`; of the answers only the counts are kept."""
    counts = {role: LabelCounts(label.min_tokens, label.min_thought_tokens) for role in SOURCES}
    with ExitStack() as stack:
        grades = stack.enter_context(closing(GradesFile(folder / "grades.parquet")))
        files = {role: stack.enter_context((folder / f"{role}.jsonl").open("w", encoding="utf-8")) for role in SOURCES}
        for answers in graded:
            role = answers[0].sample.source
            chosen = choose(role, answers, label)
            grades.add(answers)
            counts[role].add(answers, chosen)
            files[role].writelines(json_line(_label_row(role, *pair)) for pair in chosen)
    return counts


def choose(role: str, answers: Sequence[Graded], label: LabelParams) -> Chosen:
    """The chosen responses of one problem, shortest first."""
    guards = {"min_tokens": label.min_tokens, "min_thought_tokens": label.min_thought_tokens}
    responses = [graded.response for graded in answers]
    if role == "system1":
        labels = choose_system1(responses, **guards)
    else:
        labels = choose_system2(responses, label.system2_choice, **guards)
    by_index = {graded.sample.sample_index: graded for graded in answers}
    return [(by_index[one.response.sample_index], one) for one in labels]


def check_error_rate(counts: Counts, limit: float) -> None:
    """StageFailed if the verifier gave no verdict on more than `limit` of all responses."""
    num_responses, num_errors = _totals(counts)
    if num_errors > limit * num_responses:
        first = [name for each in counts.values() for name in each.first_errors][:FEW]
        raise StageFailed(
            f"The verifier gave no verdict on {num_errors} of {num_responses} responses "
            f"({num_errors / num_responses:.2%}, limit {limit:.2%}), first: {', '.join(first)}; correct the gold "
            "answers of these problems, or raise label.max_verifier_error_rate."
        )


def check_not_empty(counts: Counts, label: LabelParams) -> None:
    """StageFailed if a role gets no response."""
    for role, each in counts.items():
        if not each.lengths:
            raise StageFailed(_empty_message(role, each, label))


def _empty_message(role: str, counts: LabelCounts, label: LabelParams) -> str:
    start = f"The {role.replace('system', 'System-')} set is empty: of {counts.num_responses} answers "
    if counts.num_correct == 0:
        return (
            f"{start}none is correct; take easier prompts in data.{role}.path, check their gold answers and "
            "data.verifier, or raise sample.samples_per_problem or decode.max_tokens."
        )
    return (
        f"{start}{counts.num_correct} are correct but too short; lower label.min_tokens ({label.min_tokens}) or "
        f"label.min_thought_tokens ({label.min_thought_tokens})."
    )


def summary(counts: Counts) -> dict[str, Any]:
    """Counts and rates, overall and per source; every answer that was not chosen is in one of the counts."""
    num_responses, num_errors = _totals(counts)
    overall = {"num_responses": num_responses, "verifier_error_rate": num_errors / num_responses}
    return overall | {source: each.figures() for source, each in counts.items()}


def _totals(counts: Counts) -> tuple[int, int]:
    """Responses, and those without a verdict."""
    return sum(each.num_responses for each in counts.values()), sum(each.num_errors for each in counts.values())


def _histogram(counts: Counts, num_bins: int) -> list[dict[str, Any]]:
    """One row per role and bin; both roles share the bins."""
    longest = max(max(each.lengths) for each in counts.values())
    return [
        {"role": role, "lower": lower, "upper": upper, "count": count}
        for role, each in counts.items()
        for lower, upper, count in length_histogram(each.lengths, num_bins, longest)
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
