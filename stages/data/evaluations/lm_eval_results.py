"""What lm-evaluation-harness says of a run as a whole: results_<date>.json, or lm_eval.json beside our records.

Reads that file and, for the texts of questions, the problem files that it names; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages.data.benchmarks import Benchmark, read_benchmark
from stages.data.evaluations.lines import read_whole
from stages.data.evaluations.source import Source
from stages.data.problems import Problem, read_problems

MAPPINGS = ("versions", "n-shot", "configs", "config")


def read_results(source: Source) -> dict[str, Any]:
    """The JSON object in the file, empty if there is no file; UserError if it is damaged."""
    if not source.exists():
        return {}
    try:
        results = json.loads(read_whole(source))
    except (ValueError, RecursionError):
        results = None
    if not isinstance(results, dict) or not all(isinstance(results.get(key, {}), dict) for key in MAPPINGS):
        raise UserError(f"{source.name} is no file of results of lm-eval; take it from the run anew, or remove it.")
    return results


def questions_of(results: Mapping[str, Any], task: str, root: Path | None) -> dict[str, Problem]:
    """By id the questions of one of our tasks, from the problem file (relative to `root`) that its configuration names;
    empty where it names none or the file is not at hand."""
    config = results.get("configs", {}).get(task) or {}
    settings = config.get("dataset_kwargs") or {}
    if root is None or not isinstance(settings.get("path"), str) or not (root / settings["path"]).is_file():
        return {}
    try:
        problems = _problems(root / settings["path"], settings)
    except (
        UserError,
        KeyError,
        TypeError,
    ):  # the file has changed since; the answers are shown without their questions
        return {}
    return {problem.id: problem for problem in problems}


def _problems(path: Path, settings: Mapping[str, Any]) -> list[Problem]:
    if "columns" not in settings:
        return read_problems(path)
    return read_benchmark(
        Benchmark(
            path=path,
            source=settings["source"],
            columns=settings["columns"],
            gold_format=settings["gold_format"],
            where=settings.get("where") or {},
            num_questions=settings.get("num_questions"),
        )
    )
