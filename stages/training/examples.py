"""Training examples from the labels, and how the examples of an optimiser step are cut into micro-batches.

Reads artifacts/labels; no torch. Which examples a step has is a function of the step and the recorded windows alone
(`stages.core.mixing`), so it is the same for any number of processes, and for a run that was killed in between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import StageFailed, UserError
from stages.core.mixing import SOURCES, Mixture, Window

NUM_REMEMBERED = 1024  # steps; the end of a window looks back at all of its own


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and response, and the problem that they belong to; the loss counts the response only."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


Pair = tuple[str, Example]  # source and example


@dataclass(frozen=True)
class Examples:
    """The examples of each source, and the share of each source's examples that was too long."""

    by_source: dict[str, list[Example]]
    left_out: dict[str, float]


def read_examples(folder: Path, max_length: int) -> Examples:
    """{system1,system2}.jsonl of `folder`; examples longer than `max_length` tokens (prompt and response) are left out."""
    kept, left_out = {}, {}
    for source in SOURCES:
        path = folder / f"{source}.jsonl"
        every = _read(path)
        kept[source] = [example for example in every if example.num_tokens <= max_length]
        left_out[source] = 1.0 - len(kept[source]) / len(every)
        if not kept[source]:
            longest = max(example.num_tokens for example in every)
            raise StageFailed(
                f"None of the {len(every)} {source} examples in {path} fits in train.max_length = {max_length} tokens; "
                f"raise it (the longest has {longest})."
            )
    return Examples(kept, left_out)


def _read(path: Path) -> list[Example]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; run `tldr run label-by-length` to make it.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise StageFailed(
            f"{path} holds no example, so there is nothing to mix; give label-by-length more problems or answers of that "
            "source (sample.samples_per_problem, label.*)."
        )
    return [Example(row["problem_id"], tuple(row["prompt_ids"]), tuple(row["token_ids"])) for row in rows]


class Batches:
    """The (source, example) pairs of every optimiser step."""

    def __init__(self, examples: Examples, batch_size: int, seed: int, unit: str) -> None:
        self._examples, self._batch_size = examples.by_source, batch_size
        lengths = {
            source: [len(example.token_ids) for example in items] for source, items in examples.by_source.items()
        }
        self._mixture = Mixture(lengths, seed, unit)
        self._recent: dict[int, tuple[list[Window], list[Pair]]] = {}

    def at(self, windows: Sequence[Window], step: int) -> list[Pair]:
        """The pairs of the optimiser step `step` (0 is the first), in global order."""
        begun = [window for window in windows if window.start < (step + 1) * self._batch_size]
        if step not in self._recent or self._recent[step][0] != begun:
            places = self._mixture.batch(windows, step * self._batch_size, (step + 1) * self._batch_size)
            self._recent[step] = begun, [(source, self._examples[source][item]) for source, item in places]
            self._recent.pop(step - NUM_REMEMBERED, None)
        return self._recent[step][1]


def realised_shares(batches: Sequence[Sequence[Pair]]) -> tuple[float, float]:
    """System-1 share of the examples and of the response tokens in `batches`."""
    pairs = [pair for batch in batches for pair in batch]
    short = [example for source, example in pairs if source == "system1"]
    all_tokens = sum(len(example.token_ids) for _, example in pairs)
    return len(short) / len(pairs), sum(len(example.token_ids) for example in short) / all_tokens


def micro_batches(
    examples: Sequence[Example], size: int, rank: int, num_processes: int, *, padding_free: bool
) -> list[list[Example]]:
    """The micro-batches of process `rank`, as many as every other process has: len(examples) / (size * num_processes).

    With padding an example costs the longest of its micro-batch, so each holds `size` examples of like length, and
    processes work on like lengths at the same time. Without padding only tokens cost: they are spread evenly.
    """
    number = len(examples) // size
    parts = _even(examples, number) if padding_free else _alike(examples, size)
    return parts[rank::num_processes]


def _alike(examples: Sequence[Example], size: int) -> list[list[Example]]:
    ordered = sorted(examples, key=lambda example: example.num_tokens)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _even(examples: Sequence[Example], number: int) -> list[list[Example]]:
    """`number` parts of about as many tokens: longest first, each to the part that has the fewest."""
    parts: list[list[Example]] = [[] for _ in range(number)]
    tokens = [0] * number
    for example in sorted(examples, key=lambda example: -example.num_tokens):
        place = min(range(number), key=lambda part: (tokens[part], part))
        parts[place].append(example)
        tokens[place] += example.num_tokens
    return parts


def row(example: Example) -> dict[str, Any]:
    """What TRL's collator takes: `input_ids`, and `labels` with -100 where no loss is counted."""
    return {
        "input_ids": [*example.prompt_ids, *example.token_ids],
        "labels": [-100] * len(example.prompt_ids) + list(example.token_ids),
    }
