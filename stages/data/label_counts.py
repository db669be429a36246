"""Counts of the graded answers of one source, answer by answer: what results/labels.json and lengths.csv say of them.

Of an answer only its length is kept, and only if it was chosen. Reads and writes no files.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from stages.core.answers import is_cut
from stages.core.labels import GradedResponse, Label, pass_rate
from stages.data.grades import Graded

FEW = 5  # responses without a verdict that are named


class LabelCounts:
    """`lengths` are the tokens of the chosen answers; `left_out` counts correct answers by the first guard that refused
    them."""

    def __init__(self, min_tokens: int, min_thought_tokens: int) -> None:
        self._min_tokens, self._min_thought_tokens = min_tokens, min_thought_tokens
        self.num_responses = self.num_correct = self.num_errors = 0
        self._num_cut = self._num_without_correct = self._num_problems_chosen = 0
        self._left_out = {"no_reasoning": 0, "min_tokens": 0, "min_thought_tokens": 0}
        self._pass_rates = array("d")  # of every problem: their mean is summed exactly, which no running sum is
        self.lengths = array("q")
        self.first_errors: list[str] = []

    def add(self, answers: Sequence[Graded], chosen: Sequence[tuple[Graded, Label]]) -> None:
        """All answers to one problem, and those of them that are trained on."""
        correct = [graded.response for graded in answers if graded.grade.correct]
        self.num_responses += len(answers)
        self.num_correct += len(correct)
        self._num_cut += sum(is_cut(graded.sample.finish_reason) for graded in answers)
        self._num_without_correct += not correct
        self._num_problems_chosen += bool(chosen)
        self._pass_rates.append(pass_rate([graded.response for graded in answers]))
        self.lengths.extend(graded.sample.num_tokens for graded, _ in chosen)
        for response in correct:
            guard = self._refusing_guard(response)
            if guard is not None:
                self._left_out[guard] += 1
        for graded in answers:
            if graded.grade.error:
                self._add_error(graded)

    def _add_error(self, graded: Graded) -> None:
        self.num_errors += 1
        if len(self.first_errors) < FEW:
            source, problem_id, sample_index = graded.sample.key
            self.first_errors.append(f"{source}:{problem_id} answer {sample_index}")

    def _refusing_guard(self, response: GradedResponse) -> str | None:
        if not response.has_reasoning:
            return "no_reasoning"
        if response.num_tokens < self._min_tokens:
            return "min_tokens"
        return "min_thought_tokens" if response.num_thought_tokens < self._min_thought_tokens else None

    def figures(self) -> dict[str, Any]:
        """Counts, rates and token lengths; needs a chosen answer. `not_chosen` are the correct ones that were usable."""
        num_responses, lengths = self.num_responses, self.lengths
        return {
            "num_problems": len(self._pass_rates),
            "num_responses": num_responses,
            "pass_rate": fmean(self._pass_rates),
            "truncation_rate": self._num_cut / num_responses,
            "verifier_error_rate": self.num_errors / num_responses,
            "num_problems_without_correct": self._num_without_correct,
            "num_problems_chosen": self._num_problems_chosen,
            "num_correct": self.num_correct,
            "left_out": self._left_out,
            "not_chosen": self.num_correct - sum(self._left_out.values()) - len(lengths),
            "num_chosen": len(lengths),
            "mean_tokens": fmean(lengths),
            "median_tokens": median(lengths),
            "min_tokens": min(lengths),
            "max_tokens": max(lengths),
        }
