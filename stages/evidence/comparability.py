"""Whether two runs may be compared: the conditions each was measured under, and where they differ.

Two numbers that were measured under different conditions differ for reasons that have nothing to do with the models. Only
what both runs know is compared: a run without a record of its conditions is refused nothing. Nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LengthUnit = Literal["tokens", "words"]
TOKEN_LIMIT = "max_tokens"
NAMES = {  # how a field is called in a sentence
    "prompts": "prompts",
    "versions": "version",
    "tokenizer": "tokenizer",
    "length_unit": "unit of length",
    "verifier": "verifier",
}
REASONS = {
    "prompts": "ids, texts or gold answers of their questions are not the same",
    "versions": "the task changed in between",
    "tokenizer": "their tokens are not the same unit",
    "length_unit": "their lengths cannot be compared",
    "verifier": "their verdicts are not by the same rule",
}


@dataclass(frozen=True)
class Conditions:
    """How a run was measured; None, or a missing key, is what its files do not say.

    `decode` holds temperature, top_p, max_tokens, repetition (None: answers are not cut for it) and what else is known;
    `task_decode` and `task_verifier` replace `decode` and `verifier` for single tasks. `tokenizer`, `model` and the
    values of `prompts` (by task, over the ids, texts and gold answers of its questions) are digests or names.
    """

    length_unit: LengthUnit
    tokenizer: str | None = None
    decode: Mapping[str, Any] | None = None
    verifier: str | None = None
    model: str | None = None
    engine: str | None = None
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    task_decode: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    task_verifier: Mapping[str, str] = field(default_factory=dict)

    def decode_of(self, task: str) -> dict[str, Any]:
        """What is known of how the answers to `task` were drawn."""
        return {**(self.decode or {}), **self.task_decode.get(task, {})}

    def verifier_of(self, task: str) -> str | None:
        return self.task_verifier.get(task, self.verifier)


@dataclass(frozen=True)
class Mismatch:
    """A condition that both runs know and that differs; `task` is None where it concerns every task."""

    field: str
    task: str | None
    baseline: str
    candidate: str

    @property
    def sentence(self) -> str:
        """What differs, both values and why it matters, as one sentence."""
        key = self.field.partition(".")[0]
        if self.field == f"decode.{TOKEN_LIMIT}":
            name, reason = (
                "token limit (decode.max_tokens)",
                "it bounds the length and cuts answers, which are then wrong",
            )
        elif key == "decode":
            name, reason = self.field, "their answers are not drawn alike"
        else:
            name, reason = NAMES[key], REASONS[key]
        where, verb = "" if self.task is None else f" of task {self.task}", "are" if name.endswith("s") else "is"
        return (
            f"The {name}{where} {verb} {self.baseline} in the baseline and {self.candidate} in the candidate: {reason}."
        )


def mismatches(baseline: Conditions, candidate: Conditions, tasks: Iterable[str]) -> list[Mismatch]:
    """Every condition of the common `tasks` that both runs know and that differs, the gravest kind first."""
    names = list(tasks)
    found = _by_task("prompts", baseline.prompts, candidate.prompts, names)
    found += _by_task("versions", baseline.versions, candidate.versions, names)
    decode = _decode(baseline, candidate, names)
    found += [each for each in decode if each.field == f"decode.{TOKEN_LIMIT}"]
    found += _whole("tokenizer", baseline.tokenizer, candidate.tokenizer)
    found += [each for each in decode if each.field != f"decode.{TOKEN_LIMIT}"]
    found += _whole("length_unit", baseline.length_unit, candidate.length_unit)
    before, after = ({name: run.verifier_of(name) for name in names} for run in (baseline, candidate))
    return found + _by_task("verifier", before, after, names)


def _whole(name: str, baseline: Any, candidate: Any) -> list[Mismatch]:
    known = baseline is not None and candidate is not None
    return [Mismatch(name, None, str(baseline), str(candidate))] if known and baseline != candidate else []


def _by_task(name: str, baseline: Mapping[str, Any], candidate: Mapping[str, Any], tasks: list[str]) -> list[Mismatch]:
    pairs = [(task, baseline.get(task), candidate.get(task)) for task in tasks]
    found = [
        Mismatch(name, task, str(before), str(after))
        for task, before, after in pairs
        if before is not None and after is not None and before != after
    ]
    return _joined(found, len(tasks))


def _decode(baseline: Conditions, candidate: Conditions, tasks: list[str]) -> list[Mismatch]:
    """Here None is a value: a run that is known not to cut repetitions."""
    specs = [(task, baseline.decode_of(task), candidate.decode_of(task)) for task in tasks]
    fields = dict.fromkeys(name for _, before, after in specs for name in before if name in after)
    found = []
    for name in fields:
        differing = [
            Mismatch(f"decode.{name}", task, _shown(before[name]), _shown(after[name]))
            for task, before, after in specs
            if name in before and name in after and before[name] != after[name]
        ]
        found += _joined(differing, len(tasks))
    return found


def _joined(found: list[Mismatch], num_tasks: int) -> list[Mismatch]:
    """One sentence without a task instead of one per task where all tasks say the same (several tasks, one setting)."""
    alike = {(each.field, each.baseline, each.candidate) for each in found}
    if len(alike) == 1 and len(found) == num_tasks > 1:
        ((name, before, after),) = alike
        return [Mismatch(name, None, before, after)]
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
    return "none" if value is None else str(value)
