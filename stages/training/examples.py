"""Training examples from the labels, and the batch at each step of the mixture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import StageFailed, UserError
from stages.core.mixing import Window, assignments, item_at

SOURCES = ("system1", "system2")
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and response; the loss counts the response only."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


def read_examples(folder: Path, max_length: int) -> dict[str, list[Example]]:
    """Examples per source from {system1,system2}.jsonl; those longer than `max_length` tokens are left out."""
    examples = {}
    for source in SOURCES:
        path = folder / f"{source}.jsonl"
        if not path.is_file():
            raise UserError(f"{path} does not exist; run `tldr run label-by-length` to make it.")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        every = [Example(tuple(row["prompt_ids"]), tuple(row["token_ids"])) for row in rows]
        examples[source] = [example for example in every if example.num_tokens <= max_length]
        if not examples[source]:
            raise StageFailed(
                f"None of the {len(every)} {source} examples fits in train.max_length = {max_length} tokens; raise it."
            )
    return examples


def batch_at(
    examples: dict[str, list[Example]], windows: Sequence[Window], step: int, batch_size: int, seed: int
) -> list[tuple[str, Example]]:
    """The (source, example) pairs of one optimiser step: a function of the step and the recorded windows alone."""
    batch = []
    for source, index in assignments(windows, step * batch_size, (step + 1) * batch_size):
        items = examples[source]
        batch.append((source, items[item_at(len(items), index, seed, source)]))
    return batch


def realised_shares(batches: Sequence[Sequence[tuple[str, Example]]]) -> tuple[float, float]:
    """System-1 share of the examples and of the response tokens in `batches`."""
    pairs = [pair for batch in batches for pair in batch]
    short = [example for source, example in pairs if source == "system1"]
    all_tokens = sum(len(example.token_ids) for _, example in pairs)
    return len(short) / len(pairs), sum(len(example.token_ids) for example in short) / all_tokens


def collate(batch: Sequence[Example], pad_id: int) -> dict[str, Any]:
    """Right-padded int64 tensors `input_ids`, `attention_mask`, `labels` of shape (examples, longest)."""
    import torch

    width = max(example.num_tokens for example in batch)
    input_ids = torch.full((len(batch), width), pad_id)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED_LABEL)
    for row, example in enumerate(batch):
        ids = torch.tensor([*example.prompt_ids, *example.token_ids])
        input_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
        labels[row, len(example.prompt_ids) : len(ids)] = ids[len(example.prompt_ids) :]
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
