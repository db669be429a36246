"""The shipped reasoner against the generator of its training traces, per chain length.

Reads models/tiny; draws fresh chains, so no committed problem set is touched. Run: `python -m benchmarks.fidelity`
(`--markdown` prints the table of the README). The same comparison, with its limits, is a test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stages._params import load_params
from stages.tiny.fidelity import compare_with_generator, fidelity_table

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=1000, help="chains per length")
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    print(fidelity_table(compare_with_generator(ROOT, load_params(ROOT), arguments.chains, arguments.seed)))


if __name__ == "__main__":
    main()
