"""How long the math verifier takes: real responses, repeated up to a number of them.

Reads every .jsonl.gz of a folder of plain answer logs (stages/data/evaluations/plain.py). Run:
`python -m benchmarks.grading FOLDER [--responses 10000] [--processes 2] [--together 1]`; prints one row of a table. With
`--together 4` each stands four times in a row, as the answers to a problem stand in samples.parquet.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from pathlib import Path

from stages.cli.grade import read_answers
from stages.verifier.grade import grade_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of .jsonl.gz logs")
    parser.add_argument("--responses", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--together", type=int, default=1)
    arguments = parser.parse_args()
    answers = [answer for file in sorted(arguments.folder.glob("*.jsonl.gz")) for answer in read_answers(file)]
    if not answers:
        parser.error(f"{arguments.folder} holds no .jsonl.gz file")
    neighbours = (answer for answer in itertools.cycle(answers) for _ in range(arguments.together))
    repeated = itertools.islice(neighbours, arguments.responses)
    items = [(answer.text, answer.finish_reason, answer.gold) for answer in repeated]
    start = time.perf_counter()
    grades = grade_all(items, "math", arguments.processes)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("| responses | characters | processes | seconds | CPU seconds | responses/s | no verdict |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    cells = (
        f"{len(items):,}",
        f"{sum(len(text) for text, _, _ in items):,}",
        str(arguments.processes),
        f"{seconds:.1f}",
        f"{used.ru_utime + used.ru_stime:.1f}",
        f"{len(items) / seconds:,.0f}",
        str(sum(grade.error for grade in grades)),
    )
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
