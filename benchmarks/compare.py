"""How long `tldr compare` takes and how much memory it needs on large results.

Writes two runs (baseline and candidate) of QUESTIONS x SAMPLES answers to a temporary folder, as question tables and as plain
JSON Lines, compares each pair in a process of its own, and prints wall seconds and peak resident memory. With `--read` it
only reads the files, here. Run: `python -m benchmarks.compare [--questions N] [--samples K] [--read]`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from stages.data.evaluations import ReadSettings, open_run
from stages.evidence.questions import QuestionRow, write_questions

WORDS = [f"step-{number}" for number in range(50)]
WORDS_PER_ANSWER = 100
KIB = 1024  # unit of ru_maxrss on Linux


def answers(num_questions: int, num_samples: int, side: str) -> Iterator[tuple[str, int, bool, int]]:
    """Question id, sample index, verdict, tokens; the candidate is half as long and as often right."""
    rng = Random(side)
    for question in range(num_questions):
        for sample in range(num_samples):
            tokens = rng.randrange(1000, 9000) // (2 if side == "candidate" else 1)
            yield f"question-{question}", sample, rng.random() < 0.8, tokens


def write_table(path: Path, num_questions: int, num_samples: int) -> None:
    rows = answers(num_questions, num_samples, path.stem)
    write_questions(path, (QuestionRow("math", "", name, i, right, n, False, False) for name, i, right, n in rows))


def write_plain(path: Path, num_questions: int, num_samples: int) -> None:
    rng, rows = Random(1), answers(num_questions, num_samples, path.stem)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(num_questions):
            mine = [next(rows) for _ in range(num_samples)]
            row = {
                "id": mine[0][0],
                "problem": f"What is the answer to {mine[0][0]}?",
                "gold": "42",
                "responses": [" ".join(rng.choices(WORDS, k=WORDS_PER_ANSWER)) for _ in mine],
                "correct": [right for _, _, right, _ in mine],
                "num_tokens": [tokens for _, _, _, tokens in mine],
            }
            stream.write(json.dumps(row) + "\n")


def measure_command(baseline: Path, candidate: Path) -> tuple[float, float]:
    """Wall seconds and peak MiB of one `tldr compare`. A fresh process starts it, so that earlier ones do not count."""
    command = [sys.executable, "-m", "stages", "compare", str(baseline), str(candidate), "--json"]
    script = (
        "import json, resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "subprocess.run(json.loads(sys.argv[1]), check=True, stdout=subprocess.DEVNULL)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([time.perf_counter() - start, peak]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(command)], check=True, capture_output=True, text=True
    )
    seconds, peak = json.loads(done.stdout)
    return seconds, peak / KIB


def measure_reading(baseline: Path, candidate: Path) -> tuple[float, float]:
    """Wall seconds of reading both in this process, and its peak MiB so far."""
    start = time.perf_counter()
    runs = [open_run(str(path), root=None, settings=ReadSettings("exact", 1)) for path in (baseline, candidate)]
    seconds = time.perf_counter() - start
    assert all(run.tables for run in runs)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--read", action="store_true", help="only read, in this process")
    options = parser.parse_args()
    measure = measure_reading if options.read else measure_command
    print(f"{options.questions:,} questions x {options.samples} answers, baseline and candidate")
    for suffix, write in ((".csv", write_table), (".jsonl", write_plain)):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{side}{suffix}" for side in ("baseline", "candidate")]
            for path in paths:
                write(path, options.questions, options.samples)
            size = sum(path.stat().st_size for path in paths) / KIB**2
            seconds, peak = measure(*paths)
        print(f"{suffix:7} {size:7,.0f} MiB on disk  {seconds:6.2f} s  {peak:7,.0f} MiB peak", flush=True)


if __name__ == "__main__":
    main()
