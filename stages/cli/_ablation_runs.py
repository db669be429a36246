"""The runs of the ablation: which there are, which are missing, and running those, several at a time.

A run is `dvc repro` in a clone of its own. Its results are stored whole or not at all, so an ablation that was stopped goes on
where it was; what its clones have committed to the common DVC cache is kept as well. The stages that all arms of a seed have in
common run once: an arm starts from their dvc.lock, results and cached outputs, and computes none of them again.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages._io import digest, whole_folder, write_json
from stages.ablation.plan import Plan, run_document
from stages.ablation.results import RECORD, SHARED, run_folder
from stages.cli._ablation_children import Children
from stages.cli._ablation_state import TEST_SET, State, clone
from stages.cli._dvc import DVC, dvc_environment
from stages.cli._project import read_record
from stages.data.problems import Problem

TARGETS = {"tune": ("train",), "report": ()}  # of `dvc repro`; none is the whole pipeline
SHARED_TARGETS = {
    "tune": ("sample", "label-by-length"),
    "report": ("sample", "label-by-length", "evaluate@base"),
}
LOCK = "dvc.lock"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """An arm with a seed in a phase; `arm` is SHARED for what all arms of the seed have in common. `document` is its
    params.yaml, `settings` a digest of what it depends on besides the code state."""

    phase: str
    arm: str
    seed: int
    document: dict[str, Any]
    settings: str

    @property
    def label(self) -> str:
        what = "shared stages" if self.arm == SHARED else self.arm
        return f"{self.phase} {what}, seed {self.seed}"

    @property
    def targets(self) -> tuple[str, ...]:
        return (SHARED_TARGETS if self.arm == SHARED else TARGETS)[self.phase]


def planned(state: State, plan: Plan, phase: str, arms: Sequence[str], fresh: Sequence[Problem]) -> list[Run]:
    """The runs of the phase: for each seed the shared stages, then every arm. Only the report reads the fresh test set."""
    test, problems = (TEST_SET, [vars(problem) for problem in fresh]) if phase == "report" else (None, [])
    seeds = plan.report_seeds if phase == "report" else plan.tune_seeds
    runs = []
    for seed in seeds:
        documents = {arm: run_document(state.document, plan, arm, seed, test) for arm in arms}
        shared = {key: value for key, value in documents[arms[0]].items() if key != "ratio"}
        runs.append(Run(phase, SHARED, seed, documents[arms[0]], digest([shared, problems])))
        runs += [Run(phase, arm, seed, documents[arm], digest([documents[arm], problems])) for arm in arms]
    return runs


def is_done(state: State, run: Run) -> bool:
    """Whether it is stored, with the settings that it would have now."""
    record = read_record(run_folder(state.folder, run.phase, run.arm, run.seed) / RECORD)
    return record.get("settings") == run.settings


def missing(state: State, runs: Sequence[Run]) -> list[Run]:
    """Those that are not done; shared stages only where an arm of the seed is not."""
    left = [run for run in runs if not is_done(state, run)]
    needed = {run.seed for run in left if run.arm != SHARED}
    return [run for run in left if run.arm != SHARED or run.seed in needed]


def run_all(state: State, plan: Plan, runs: Sequence[Run], fresh: list[Problem], lock: int, say: Say) -> None:
    """Run them, shared stages first, `plan.jobs` at a time; StageFailed at the end if any failed, the others are stored.

    An exception in this thread (Ctrl-C, SIGTERM) ends the children and passes on.
    """
    children = Children(lock)
    failed: dict[str, str] = {}
    for part in ([run for run in runs if run.arm == SHARED], [run for run in runs if run.arm != SHARED]):
        broken = {run.seed for run in runs if run.label in failed}
        todo = [run for run in part if run.seed not in broken]
        with ThreadPoolExecutor(plan.jobs) as pool:
            futures = {pool.submit(_run, state, run, fresh, children): run for run in todo}
            try:
                for number, future in enumerate(as_completed(futures), start=1):
                    run, failure = futures[future], future.result()
                    if failure is not None:
                        failed[run.label] = failure
                    say(f"{run.label}: {failure or 'done'} ({number} of {len(todo)})")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                children.stop()
                raise
    if failed:
        first = next(iter(failed))
        raise StageFailed(
            f"{len(failed)} of {len(runs)} runs failed, first {first} ({failed[first]}); the others are stored. Logs are in "
            f"{(state.folder / 'logs').relative_to(state.root)}; run the same command again for those that failed."
        )


def _run(state: State, run: Run, fresh: list[Problem], children: Children) -> str | None:
    """Run and store it; what failed, in words, or None."""
    name = f"{run.phase}-{run.arm}-{run.seed}"
    log = state.folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with clone(state, name, run.document, fresh if run.phase == "report" else []) as folder:
        environment = dvc_environment("") | {"DVC_SITE_CACHE_DIR": str(folder / ".tldr" / "site")}
        if run.arm != SHARED:
            _take_over(run_folder(state.folder, run.phase, SHARED, run.seed), folder)
            children.run([*DVC, "checkout", *SHARED_TARGETS[run.phase]], folder, environment, log)
        start = time.monotonic()
        code = children.run([*DVC, "repro", *run.targets], folder, environment, log)
        seconds = time.monotonic() - start
        if code != 0:
            ended = read_record(folder / ".tldr" / "last_exit.json")
            if ended.get("exit_code"):
                return f"{ended['stage']} ended with exit code {ended['exit_code']}: {ended['message']}"
            return f"dvc ended with exit code {code}"
        _store(state, run, folder, log, seconds)
    return None


def _take_over(shared: Path, folder: Path) -> None:
    """What git would track of the shared stages; their other outputs come from the DVC cache."""
    shutil.copyfile(shared / LOCK, folder / LOCK)
    shutil.copytree(shared / "results", folder / "results", copy_function=shutil.copyfile, dirs_exist_ok=True)


def _store(state: State, run: Run, folder: Path, log: Path, seconds: float) -> None:
    """The results and what the run was, whole or not at all."""
    text = log.read_text(encoding="utf-8", errors="replace")
    record = {
        "phase": run.phase,
        "arm": run.arm,
        "seed": run.seed,
        "commit": state.commit,
        "settings": run.settings,
        "ratio": run.document["ratio"],
        "seconds": round(seconds, 1),
        "ran": re.findall(r"^Running stage '([^']+)'", text, re.MULTILINE),
    }
    with whole_folder(run_folder(state.folder, run.phase, run.arm, run.seed)) as stored:
        shutil.copytree(folder / "results", stored / "results", copy_function=shutil.copyfile)
        if run.arm == SHARED:
            shutil.copyfile(folder / LOCK, stored / LOCK)
        write_json(stored / RECORD, record)
