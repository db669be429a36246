"""The stored runs of one code state, as the table reads them.

Reads <state>/<phase>/<arm>/<seed>/: run.json (what the run was) and results/ (what its stages wrote). Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages._io import read_json
from stages.ablation.statistics import Tested, Trained

PHASES = ("tune", "report")
SHARED = "_shared"  # in place of an arm: the stages that all arms of a seed have in common
RECORD = "run.json"
AGAIN = "tldr ablate tune"


def run_folder(state: Path, phase: str, arm: str, seed: int) -> Path:
    return state / phase / arm / str(seed)


def records(state: Path) -> Iterator[dict[str, Any]]:
    """run.json of every stored run: phase, arm, seed, commit, settings, seconds, ran (stages)."""
    for phase in PHASES:
        for path in sorted(state.glob(f"{phase}/*/*/{RECORD}")):
            yield read_json(path, AGAIN)


def read_trained(folder: Path) -> Trained:
    train = read_json(folder / "results" / "train.json", AGAIN)
    bounds = read_json(folder / "results" / "schedule.json", AGAIN)
    return Trained(
        tokens=train["control_tokens"],
        accuracy=train["control_accuracy"],
        base_tokens=bounds["long_tokens"],
        base_accuracy=bounds["long_accuracy"],
        selected_step=train["selected_step"],
        fallback=bool(train["selection_fallback"]),
        short_share=train["short_share_mean"],
    )


def read_tested(folder: Path) -> Tested:
    metrics = read_json(folder / "results" / "metrics.json", AGAIN)
    return Tested(
        trained=read_trained(folder),
        tokens=metrics["candidate_mean_tokens"],
        accuracy=metrics["candidate_accuracy"],
        base_tokens=metrics["baseline_mean_tokens"],
        base_accuracy=metrics["baseline_accuracy"],
        reduction=metrics["token_reduction"],
        difference=metrics["accuracy_difference"],
        passed=metrics["verdict"] == 1,
    )
