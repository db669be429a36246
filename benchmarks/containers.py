"""Launch overhead of a container: the same stage on the host and in its image, side by side.

Run it in a checkout where `tldr repro` has run and `tldr images list` says that the cpu image is ready, with the
environment active: `python -m benchmarks.containers [--stage label-by-length] [--runs 10]`. Prints medians and the range
of the paired differences. The stage runs in two copies of the checkout, which are removed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".venv", ".tldr", "wheels", "cache", "__pycache__", ".*_cache")
ENGINES = ("host", "docker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", default="label-by-length")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {engine: prepare(Path(folder) / engine, engine) for engine in ENGINES}
        rounds = [  # interleaved, the first round is a warm-up
            {engine: seconds_of(root, options.stage) for engine, root in places.items()}
            for _ in range(options.runs + 1)
        ][1:]
    for engine in ENGINES:
        print(f"{options.stage}, engine {engine}: {statistics.median(times[engine] for times in rounds):.3f} s")
    extra = sorted(times["docker"] - times["host"] for times in rounds)
    print(
        f"overhead: median {statistics.median(extra):.3f} s, from {extra[0]:.3f} to {extra[-1]:.3f} ({len(extra)} pairs)"
    )


def prepare(folder: Path, engine: str) -> Path:
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT, symlinks=True)
    params = folder / "params.yaml"
    text = re.sub(r'(engine"?: "?)(?:host|docker)\b', rf"\g<1>{engine}", params.read_text(encoding="utf-8"), count=1)
    params.write_text(text, encoding="utf-8")
    return folder


def seconds_of(root: Path, stage: str) -> float:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "stages", "run", stage], cwd=root, env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
