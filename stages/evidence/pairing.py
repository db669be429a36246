"""Which questions of two models belong together. Pure functions; nothing is read or written."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stages.evidence.estimates import QuestionTable

Pair = tuple[QuestionTable, QuestionTable]


def pair_tasks(
    base: Mapping[str, QuestionTable], candidate: Mapping[str, QuestionTable], *, allow_mismatch: bool = False
) -> tuple[list[Pair], list[str]]:
    """Tables of the same task with the same questions in the same order, and a sentence for everything left out.

    ValueError names what the models do not share; with `allow_mismatch` only if they share nothing.
    """
    common = sorted(set(base) & set(candidate), key=natural)
    if not common:
        raise ValueError(f"task: no task in common, the baseline has {_names(base)}, the candidate {_names(candidate)}")
    left_out = []
    for side, mine, other in (("baseline", base, candidate), ("candidate", candidate, base)):
        alone = sorted(set(mine) - set(other), key=natural)
        if alone and not allow_mismatch:
            raise ValueError(f"task: {', '.join(alone)} only in the {side}; the two models have different tasks")
        left_out += [f"task {name} is only in the {side}" for name in alone]
    pairs = []
    for task in common:
        pair, sentences = align(base[task], candidate[task], allow_mismatch=allow_mismatch)
        pairs.append(pair)
        left_out += sentences
    return pairs, left_out


def align(base: QuestionTable, candidate: QuestionTable, *, allow_mismatch: bool = False) -> tuple[Pair, list[str]]:
    """Both with the questions of the baseline in its order; ValueError names the field that differs.

    With `allow_mismatch` the common questions stay, whatever the number of samples, under the groups of the baseline.
    """
    positions = {question_id: i for i, question_id in enumerate(candidate.question_ids)}
    kept = [i for i, question_id in enumerate(base.question_ids) if question_id in positions]
    differences = [*_questions(base, candidate), *_samples(base, candidate)]
    if not kept:
        raise ValueError(
            f"question_id: task {base.task!r} has no question in common, the baseline has {base.question_ids[0]!r}, "
            f"the candidate {candidate.question_ids[0]!r}"
        )
    if differences and not allow_mismatch:
        raise ValueError(differences[0])
    first = base.select(kept)
    second = candidate.select([positions[question_id] for question_id in first.question_ids])
    for question_id, before, after in zip(first.question_ids, first.groups, second.groups, strict=True):
        if before != after and not allow_mismatch:
            raise ValueError(f"group: question {question_id!r} is {before!r} in one model and {after!r} in the other")
    return (first, second), differences


def _questions(base: QuestionTable, candidate: QuestionTable) -> list[str]:
    first, second = set(base.question_ids), set(candidate.question_ids)
    missing = [question_id for question_id in base.question_ids if question_id not in second]
    extra = [question_id for question_id in candidate.question_ids if question_id not in first]
    if not missing and not extra:
        return []
    side, example = ("candidate", missing[0]) if missing else ("baseline", extra[0])
    return [
        f"question_id: task {base.task!r} has different questions in the two models, {len(missing)} only in the "
        f"baseline and {len(extra)} only in the candidate; {example!r} is missing in the {side}"
    ]


def _samples(base: QuestionTable, candidate: QuestionTable) -> list[str]:
    if base.num_samples == candidate.num_samples:
        return []
    return [
        f"sample_index: task {base.task!r} has {base.num_samples} samples per question in the baseline and "
        f"{candidate.num_samples} in the candidate; evaluate both with the same number"
    ]


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts length-2 before length-10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _names(tables: Mapping[str, QuestionTable]) -> str:
    return ", ".join(sorted(tables, key=natural)[:5]) or "none"
