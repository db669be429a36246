"""Lengths of real prompts and answers: benchmarks/lengths.csv, made from published logs, and examples drawn from it.

The logs are generations of two fine-tuned DeepSeek-R1-Distill-Qwen-7B (github.com/zzli2022/TLDR), which hold no token
counts: tokens are estimated from characters. LOGS holds `r1_logs/{tldr,static}-7b_{math500,amc23}.jsonl.gz` and
`benchmarks/math500.jsonl`. Makes the table anew: `python -m benchmarks.lengths LOGS`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages.training.examples import Example, Examples

TABLE = Path(__file__).resolve().parent / "lengths.csv"
RUNS, BENCHMARKS = ("tldr-7b", "static-7b"), ("math500", "amc23")
# Characters per token of TLDR-7B on MATH-500: mean characters in its log / mean tokens in the paper's Table 1
RATIO = 4126.366 / 1556
EASY_LEVELS = (1, 2)  # of MATH-500
PERCENTILES = (0, 1, *range(5, 100, 5), 99, 100)
COLUMNS = ("system1_prompt", "system1_response", "system2_prompt", "system2_response")
FIRST_ID = 3  # after the special tokens
MIN_FITTING = 3  # place in PERCENTILES: a tenth of each source's responses
HEADER = f"""\
# Tokens of prompts and responses by percentile, estimated (the logs hold no token counts): characters / {RATIO:.3f}.
# Source: logs of TLDR-7B and static-7B, two fine-tuned DeepSeek-R1-Distill-Qwen-7B (github.com/zzli2022/TLDR), answers that
# their harness graded correct. The ratio is that of TLDR-7B on MATH-500: mean characters in its log / mean tokens in Table 1
# of arXiv 2506.02678; the base model's answers are longer there.
# system1: MATH-500 of levels 1 and 2 (the logs at hand have no GSM8K), the shortest answer per question.
# system2: MATH-500 of levels 3 to 5 and AMC23, the shortest answer with a closed thought per question.
# Made by `python -m benchmarks.lengths`.
"""


def read_answers(logs: Path) -> list[tuple[str, str, str, bool]]:
    """(source, prompt, answer, whether it closed a thought) of every correct answer in the logs."""
    with (logs / "benchmarks" / "math500.jsonl").open(encoding="utf-8") as stream:
        levels = {row["problem"]: row["level"] for row in map(json.loads, stream)}
    found = []
    for benchmark in BENCHMARKS:
        for run in RUNS:
            with gzip.open(logs / "r1_logs" / f"{run}_{benchmark}.jsonl.gz", "rt", encoding="utf-8") as stream:
                rows = [json.loads(line) for line in stream]
            for row in rows:
                easy = benchmark == "math500" and levels[row["problem"]] in EASY_LEVELS
                right = [text for text, correct in zip(row["responses"], row["correct"], strict=True) if correct]
                source = "system1" if easy else "system2"
                found += [(source, row["prompt"], text, "</think>" in text) for text in right]
    return found


def table(answers: Sequence[tuple[str, str, str, bool]]) -> list[dict[str, Any]]:
    """A row per percentile; System-2 answers without a thought are left out, as label.min_thought_tokens leaves them out."""
    columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
    shortest: dict[tuple[str, str], int] = {}
    for source, prompt, text, thought in answers:
        if source == "system1" or thought:
            key = source, prompt
            shortest[key] = min(len(text), shortest.get(key, len(text)))
    for (source, prompt), characters in shortest.items():
        columns[f"{source}_prompt"].append(len(prompt))
        columns[f"{source}_response"].append(characters)
    cuts = {name: [min(v), *statistics.quantiles(v, n=100, method="inclusive"), max(v)] for name, v in columns.items()}
    tokens = {name: [round(value / RATIO) for value in values] for name, values in cuts.items()}
    return [{"percentile": p, **{name: tokens[name][p] for name in COLUMNS}} for p in PERCENTILES]


def read_table() -> dict[str, list[tuple[float, float]]]:
    """(share of examples, tokens) by column: the inverse distribution function, in points."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    return {name: [(float(row["percentile"]) / 100.0, float(row[name])) for row in rows] for name in COLUMNS}


def draw(points: Sequence[tuple[float, float]], rng: random.Random) -> int:
    """A length in tokens, linear between the percentiles."""
    place = rng.random()
    for (below, low), (above, high) in pairwise(points):
        if place <= above:
            return round(low + (high - low) * (place - below) / (above - below))
    raise AssertionError("the last percentile is 100")


def drawn_examples(num_examples: int, max_length: int, num_ids: int, seed: int) -> Examples:
    """`num_examples` of each source with random token ids below `num_ids`; a draw beyond `max_length` tokens (prompt and
    response) is left out and counted, as `train` leaves such examples out. UserError if nearly none fits."""
    rng, points = random.Random(seed), read_table()
    needed = round(max(points[f"{source}_response"][MIN_FITTING][1] for source in ("system1", "system2")))
    if max_length < needed:
        raise UserError(f"{max_length} tokens hold too few of the examples drawn from {TABLE.name}; allow {needed}.")
    kept: dict[str, list[Example]] = {}
    left_out = {}
    for source in ("system1", "system2"):
        examples: list[Example] = []
        tried = 0
        while len(examples) < num_examples:
            prompt, response = (draw(points[f"{source}_{part}"], rng) for part in ("prompt", "response"))
            tried += 1
            if prompt + response <= max_length:
                ids = rng.choices(range(FIRST_ID, num_ids), k=prompt + response)
                examples.append(Example(f"{source}-{len(examples)}", tuple(ids[:prompt]), tuple(ids[prompt:])))
        kept[source], left_out[source] = examples, 1.0 - num_examples / tried
    return Examples(kept, left_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path)
    rows = table(read_answers(parser.parse_args().logs))
    with TABLE.open("w", encoding="utf-8", newline="") as stream:
        stream.write(HEADER)
        writer = csv.DictWriter(stream, ("percentile", *COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
