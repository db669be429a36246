"""Does asking a part of the control set at an update cost anything? The default profile with and without it, seed by seed.

Each seed runs the whole pipeline in a fresh clone of the committed state, once for each setting, one or more parameters of the
block `ratio`; the stages before the ratio are shared. Test questions are fresh ones, drawn as those of the ablation, so that
the committed test set takes no part in the choice of a default. Prints Markdown: a row per run, then the differences from the
first setting, paired by seed, with Student's 95 % intervals. Run: `python -m benchmarks.screening [--seeds 6 7 8] [--jobs 2]
[--settings control_questions=null control_questions=32,on_noisy_control=lower_eta]`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t as student

from benchmarks.seeds import ROOT
from stages._io import write_jsonl
from stages._params import load_params
from stages.ablation.fresh_test import fresh_test
from stages.data.overlap import likeness
from stages.data.problems import read_problems

TEST = "data/tiny/fresh.jsonl"
SETS = ("system1", "system2", "control", "test")


class Run(NamedTuple):
    """Of one seed and setting; tokens per answer of the test set, accuracies as fractions, seconds of the stage train."""

    tokens: float
    reduction: float
    difference: float
    step: int
    num_scored: int
    share: float
    seconds: float
    verdict: str


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 8])
    options.add_argument(
        "--settings",
        nargs="+",
        default=["control_questions=null", "control_questions=32"],
        help="KEY=VALUE[,KEY=VALUE] each",
    )
    options.add_argument("--test-seed", type=int, default=3)
    options.add_argument("--jobs", type=int, default=1, help="seeds at a time; above 1 the seconds say little")
    asked = options.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    runs: dict[str, list[Run]] = {setting: [] for setting in asked.settings}
    print("| seed | setting | tokens | fewer | accuracy - base | verdict | step | answered all | share | train, s |")
    print("|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|")
    with ThreadPoolExecutor(asked.jobs) as pool:
        found = pool.map(
            lambda seed: of_seed(seed, asked.settings, asked.test_seed, commit.stdout.strip()), asked.seeds
        )
        for seed, of_settings in zip(asked.seeds, found, strict=True):
            for setting, run in of_settings.items():
                runs[setting].append(run)
                print(row(seed, setting, run), flush=True)
    first, *others = asked.settings
    for other in others:
        print(f"\n{other} - {first}: {'; '.join(differences(runs[first], runs[other]))}.")


def of_seed(seed: int, settings: list[str], test_seed: int, commit: str) -> dict[str, Run]:
    with tempfile.TemporaryDirectory(prefix="tldr-screening-") as name:
        root = Path(name)
        subprocess.run(["git", "clone", "-q", str(ROOT), name], check=True)
        subprocess.run(["git", "checkout", "-q", commit], cwd=name, check=True)
        params = load_params(root)
        sets = {role: read_problems(root / getattr(params.data, role).path) for role in SETS}
        fresh = fresh_test(sets, test_seed, likeness(params))
        write_jsonl(root / TEST, [vars(each) | {"difficulty": int(each.difficulty or 0)} for each in fresh])
        return {setting: pipeline(root, seed, setting) for setting in settings}


def pipeline(root: Path, seed: int, setting: str) -> Run:
    values = [f"seed={seed}", f"data.test.path={TEST}", *(f"ratio.{each}" for each in setting.split(","))]
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=root, check=True)
    command(root, "repro", "ratio-schedule", *(word for value in values for word in ("-S", value)))
    start = time.perf_counter()
    command(root, "repro", "train")
    seconds = time.perf_counter() - start
    command(root, "repro")
    report: dict[str, Any] = json.loads(command(root, "report", "--json"))
    train = load_params(root).train
    num_updates = train.max_steps // train.update_every  # each asks the whole set unless `scored` is there
    trained = json.loads((root / "results" / "train.json").read_text())
    return Run(
        report["candidate"]["mean_tokens"],
        report["token_reduction"]["micro"],
        report["accuracy_difference"]["value"],
        trained["selected_step"],
        len(trained.get("scored", ())) or num_updates,
        trained["short_share_mean"],
        seconds,
        report["verdict"],
    )


def command(root: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "stages", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tldr {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def row(seed: int, setting: str, run: Run) -> str:
    cells = (
        *(str(seed), setting, f"{run.tokens:.1f}", f"{run.reduction:.1%}", f"{100 * run.difference:+.2f} points"),
        *(run.verdict, str(run.step), str(run.num_scored), f"{run.share:.2f}", f"{run.seconds:.0f}"),
    )
    return f"| {' | '.join(cells)} |"


def differences(before: list[Run], after: list[Run]) -> list[str]:
    """Means over seeds with 95 % intervals."""
    texts = []
    for name, scale, unit in (
        ("tokens", 1.0, ""),
        ("reduction", 100.0, " points"),
        ("difference", 100.0, " points"),
        ("seconds", 1.0, " s"),
    ):
        values = [scale * (getattr(new, name) - getattr(old, name)) for old, new in zip(before, after, strict=True)]
        half = math.nan
        if len(values) > 1:
            half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        texts.append(f"{name} {statistics.fmean(values):+.2f} ± {half:.2f}{unit}")
    return texts


if __name__ == "__main__":
    main()
