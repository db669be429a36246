"""Graded samples: verdict and length of the thought, written to artifacts/labels/grades.parquet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import whole_file
from stages.core.answers import CLOSE
from stages.core.labels import GradedResponse, pass_rate
from stages.data.problems import Problem
from stages.data.prompts import load_tokenizer
from stages.data.samples import Sample
from stages.verifier.grade import Grade, grade_all


@dataclass(frozen=True)
class Graded:
    """A sample with its verdict; `response` is what core.labels chooses from."""

    sample: Sample
    grade: Grade
    response: GradedResponse


Groups = dict[str, list[list[Graded]]]  # by source, one list of answers per problem, in the order of the problem file


def close_id(model_path: Path) -> int:
    """Id of the token that closes a thought; UserError if the tokenizer has no such single token."""
    vocabulary: dict[str, int] = load_tokenizer(model_path).get_vocab()
    if CLOSE not in vocabulary:
        raise UserError(
            f"The tokenizer in {model_path} has no single token {CLOSE}, so thoughts cannot be measured; "
            "set model.path to a reasoning model whose tokenizer has it."
        )
    return vocabulary[CLOSE]


def grade_samples(
    samples: Sequence[Sample], sources: dict[str, list[Problem]], verifier: str, processes: int, closing_id: int
) -> Groups:
    """Every sample with its verdict, grouped by problem, answers by sample index."""
    golds = {(source, problem.id): problem.gold for source, rows in sources.items() for problem in rows}
    items = [(s.text, s.finish_reason, golds[s.source, s.problem_id]) for s in samples]
    grades = grade_all(items, verifier, processes)
    by_problem: dict[tuple[str, str], list[Graded]] = defaultdict(list)
    for sample, grade in zip(samples, grades, strict=True):
        graded = Graded(sample, grade, _response(sample, grade, closing_id))
        by_problem[sample.source, sample.problem_id].append(graded)
    for answers in by_problem.values():
        answers.sort(key=lambda graded: graded.sample.sample_index)
    return {source: [by_problem[source, problem.id] for problem in rows] for source, rows in sources.items()}


def _response(sample: Sample, grade: Grade, closing_id: int) -> GradedResponse:
    """The thought ends at the last closing token, as in core.answers; an unclosed thought is no reasoning."""
    closed = closing_id in sample.token_ids
    num_thought_tokens = len(sample.token_ids) - 1 - sample.token_ids[::-1].index(closing_id) if closed else 0
    return GradedResponse(
        problem_id=sample.problem_id,
        sample_index=sample.sample_index,
        num_tokens=sample.num_tokens,
        num_thought_tokens=num_thought_tokens,
        correct=grade.correct,
        has_reasoning=num_thought_tokens > 0,
        finish_reason=sample.finish_reason,
    )


def write_grades(path: Path, groups: Groups) -> None:
    """One row per response, in the order of `groups`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_grade_row(graded, answers) for problems in groups.values() for answers in problems for graded in answers]
    kinds = {"correct": pa.bool_(), "verifier_error": pa.bool_(), "pass_rate": pa.float64()}
    counts = dict.fromkeys(("sample_index", "num_tokens", "num_thought_tokens"), pa.int32())
    schema = pa.schema([(name, (kinds | counts).get(name, pa.string())) for name in rows[0]])
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def _grade_row(graded: Graded, answers: list[Graded]) -> dict[str, Any]:
    response = graded.response
    return {
        "source": graded.sample.source,
        "problem_id": response.problem_id,
        "sample_index": response.sample_index,
        "num_tokens": response.num_tokens,
        "num_thought_tokens": response.num_thought_tokens,
        "finish_reason": response.finish_reason,
        "correct": response.correct,
        "verifier_error": graded.grade.error,
        "answer": graded.grade.answer,
        "pass_rate": pass_rate([other.response for other in answers]),
    }
