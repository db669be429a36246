"""Wall time of the command line: `tldr --help`, a `tldr repro` with nothing to do against `dvc repro`.

Run it after `tldr repro`, with the environment active: `python -m benchmarks.commands [--runs 7]`. Prints medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "tldr --help": ["tldr", "--help"],
    "tldr repro, nothing to do": ["tldr", "repro"],
    "dvc repro, nothing to do": ["dvc", "repro"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    binaries = Path(sys.executable).parent
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):  # interleaved, the first round is a warm-up
        for name, (program, *arguments) in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([binaries / program, *arguments], cwd=ROOT, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {seconds:.3f} s")
    print(f"ratio of the two repros: {medians['tldr repro, nothing to do'] / medians['dvc repro, nothing to do']:.2f}")


if __name__ == "__main__":
    main()
