"""The budget curve against the real thing: the same answers drawn with the smaller limit of tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stages.core.answers import is_cut
from stages.data.problems import read_problems
from stages.data.prompts import decode_text, load_tokenizer, prompt_ids
from stages.engines.base import DecodeSpec, Request
from stages.engines.hf import HfEngine
from stages.evidence.budget import budget_curve
from stages.evidence.estimates import question_tables
from stages.evidence.questions import QuestionRow
from stages.verifier.grade import grade_exact
from tests.paths import ROOT

SPEC = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=200)
BUDGETS = (16, 40, 80, 120, 200)


@pytest.mark.model
def test_a_run_with_a_smaller_limit_gives_the_curve() -> None:
    model = ROOT / "models" / "tiny"
    tokenizer = load_tokenizer(model)
    problems = read_problems(ROOT / "data" / "tiny" / "test.jsonl")[::40]
    golds = {problem.id: problem.gold for problem in problems}
    requests = [Request(p.id, sample, prompt_ids(tokenizer, p.prompt)) for p in problems for sample in range(2)]

    def rows(budget: int) -> list[QuestionRow]:
        found = sorted(
            engine.generate(requests, replace(SPEC, max_tokens=budget), 1), key=lambda r: (r.problem_id, r.sample_index)
        )
        return [_row(r.problem_id, r.sample_index, r.finish_reason, r.token_ids) for r in found]

    def _row(question: str, sample: int, reason: str, ids: tuple[int, ...]) -> QuestionRow:
        correct = grade_exact(decode_text(tokenizer, ids), reason, golds[question]).correct
        return QuestionRow("tiny", "", question, sample, correct, len(ids), is_cut(reason), False)

    with HfEngine(model, "float32", "cpu", processes=1, threads=1, batch_size=64, evict_every=4) as engine:
        drawn = [budget_curve(question_tables(rows(budget)), [budget])[0] for budget in BUDGETS]
        derived = budget_curve(question_tables(rows(SPEC.max_tokens)), BUDGETS)
    assert derived == drawn
    accuracies = [row["accuracy"] for row in derived]
    assert accuracies == sorted(accuracies)
    assert 0 <= accuracies[0] < accuracies[2] < accuracies[-1] <= 1
    assert 0 < derived[-1]["truncation_rate"] < derived[2]["truncation_rate"] < 1
