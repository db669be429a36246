"""The default profile for several seeds: mean and spread of reduction and accuracy difference.

Each seed runs the whole pipeline in a fresh clone of the committed state (sampling, mixture and evaluation all use the
seed). Run: `python -m benchmarks.seeds [--seeds 1 2 3]`; about as long as that many `make repro`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    reports = {}
    print("| seed | reduction | accuracy before | accuracy after | difference | verdict | step |")
    print("|---|---:|---:|---:|---:|---|---:|")
    for seed in parser.parse_args().seeds:
        reports[seed], step = run(seed)
        print(_row(seed, reports[seed], step), flush=True)
    for name, values in _figures(list(reports.values())).items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(
            f"{name}: mean {statistics.fmean(values):.4f}, sd {spread:.4f}, min {min(values):.4f}, max {max(values):.4f}"
        )


def run(seed: int) -> tuple[dict[str, Any], int]:
    """The report of one seed, and the selected step."""
    with tempfile.TemporaryDirectory(prefix="tldr-seed-") as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        tldr = [sys.executable, "-m", "stages"]
        with (Path(folder) / "repro.log").open("w") as log:
            command = [*tldr, "repro", "-S", f"seed={seed}"]
            subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=subprocess.STDOUT)
        printed = subprocess.run([*tldr, "report", "--json"], cwd=folder, check=True, capture_output=True, text=True)
        step = json.loads((Path(folder) / "results" / "train.json").read_text())["selected_step"]
    return json.loads(printed.stdout), step


def _row(seed: int, report: dict[str, Any], step: int) -> str:
    cells = (
        str(seed),
        f"{report['token_reduction']['micro']:.1%}",
        f"{report['baseline']['accuracy']:.4f}",
        f"{report['candidate']['accuracy']:.4f}",
        f"{report['accuracy_difference']['value']:+.4f}",
        report["verdict"],
        str(step),
    )
    return f"| {' | '.join(cells)} |"


def _figures(reports: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {
        "token reduction (micro)": [report["token_reduction"]["micro"] for report in reports],
        "accuracy difference": [report["accuracy_difference"]["value"] for report in reports],
    }


if __name__ == "__main__":
    main()
