"""How many tokens the stages generate and train on.

Reads problem files that are there, results/sample.json where it was made with these parameters, task files, and for what is not
known yet the published cells of the paper's base models (docs/paper_table1.csv): means at a limit of 8,192 tokens, so a
higher limit means more. A candidate is taken to write as much as the base model: the plan of a success is too large.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages._io import read_json
from stages._params import Params
from stages.data.problems import read_problems
from stages.data.sources import Sources, task_benchmarks
from stages.training.screening import num_asked

CELLS = "docs/paper_table1.csv"
PUBLISHED_NUMBERS = {"system1": 7473, "system2": 877, "control": 919}  # questions before sets are compared
LIKE = {"system1": "gsm8k", "system2": "aime24", "control": "aime24"}  # whose published length stands in
SHORT_TOKENS = 1121.0  # of Qwen2.5-7B-Instruct on the control set, as the authors of the paper measured it


@dataclass(frozen=True)
class Answers:
    """`number` answers of `mean_tokens`; `measured` says that the length is, with these parameters."""

    number: int
    mean_tokens: float
    measured: bool

    @property
    def tokens(self) -> float:
        return self.number * self.mean_tokens


@dataclass(frozen=True)
class Workload:
    """Answers of each step of the pipeline, and the tokens of the training examples, prompts left out.

    `each_control` is of one update, `whole_control` of all checkpoints that may answer the whole control set after training.
    """

    system1: Answers
    system2: Answers
    control: Answers
    short: Answers
    each_control: Answers
    num_updates: int
    whole_control: Answers
    test: Answers
    num_examples: int
    example_tokens: float

    @property
    def generated(self) -> dict[str, float]:
        """Tokens by stage."""
        return {
            "sample": self.system1.tokens + self.system2.tokens + self.control.tokens,
            "ratio-schedule": self.short.tokens,
            "train": self.steering + self.whole_control.tokens,
            "evaluate@base": self.test.tokens,
            "evaluate@candidate": self.test.tokens,
        }

    @property
    def steering(self) -> float:
        """Tokens of the control evaluations that move the ratio."""
        return self.num_updates * self.each_control.tokens

    @property
    def trained(self) -> float:
        return self.num_examples * self.example_tokens


def workload(root: Path, params: Params, sources: Sources | None) -> Workload:
    """From what is known of the profile that `params` are; UserError for a problem file that cannot be read."""
    cells, measured = _cells(root, params), _measured(root, params)
    numbers = {role: _number(root, params, sources, role) for role in ("system1", "system2", "control")}
    lengths = {role: min(measured.get(role, cells[LIKE[role]]), params.decode.max_tokens) for role in numbers}
    ratio, train = params.ratio, params.train

    def of(role: str, samples: int) -> Answers:
        return Answers(numbers[role] * samples, lengths[role], role in measured)

    asks = ratio.short_bound.source == "model"
    at_update = num_asked(params, numbers["control"])
    per_problem = params.sample.samples_per_problem
    mixed = ratio.init * lengths["system1"] + (1 - ratio.init) * lengths["system2"]
    return Workload(
        of("system1", per_problem),
        of("system2", per_problem),
        of("control", ratio.bound_samples),
        Answers(numbers["control"] * ratio.bound_samples if asks else 0, SHORT_TOKENS, measured=False),
        Answers(at_update * ratio.control_samples, lengths["control"], "control" in measured),
        train.max_steps // train.update_every,
        of("control", 0 if at_update == numbers["control"] else ratio.control_samples * params.select.candidates),
        _test(root, params, cells, measured),
        train.max_steps * train.batch_size,
        min(mixed, train.max_length),
    )


def _cells(root: Path, params: Params) -> dict[str, float]:
    """Mean tokens of the unchanged base model by benchmark: the 14B rows for a 14B model, else the 7B ones."""
    size = "14B" if "14b" in params.model.path.lower() else "7B"
    with (root / CELLS).open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["method"] == "original" and size in row["base_model"]]
    found = {row["benchmark"]: float(row["mean_tokens"]) for row in rows}
    return found | {"aime25": found["aime24"]}


def _measured(root: Path, params: Params) -> dict[str, float]:
    """Mean tokens by source that `sample` and `evaluate` found, if params.yaml still names this profile."""
    from stages._params import load_params

    here = load_params(root)
    if (here.profile, here.model, here.decode) != (params.profile, params.model, params.decode):
        return {}
    found: dict[str, float] = {}
    sample, base = root / "results" / "sample.json", root / "results" / "base.json"
    if sample.is_file():
        rows = read_json(sample, "tldr run sample")
        found |= {role: rows[role]["mean_tokens"] for role in LIKE if isinstance(rows.get(role), Mapping)}
    if base.is_file():
        found["test"] = read_json(base, "tldr run evaluate@base")["mean_tokens"]
    return found


def _number(root: Path, params: Params, sources: Sources | None, role: str) -> int:
    path = getattr(params.data, role).path
    if (root / path).is_file() or sources is None or path not in sources.sets:
        return len(read_problems(root / path))
    return PUBLISHED_NUMBERS[role]


def _test(root: Path, params: Params, cells: Mapping[str, float], measured: Mapping[str, float]) -> Answers:
    """All tasks together; a task that reads data.test.path has its questions, one without a published cell the longest."""
    samples, limit = params.evaluate.samples, params.decode.max_tokens
    tasks = task_benchmarks(root, params)
    number, tokens = 0, 0.0
    for name in params.evaluate.tasks:
        own = name not in tasks
        questions = len(read_problems(root / params.data.test.path)) if own else tasks[name].num_questions or 0
        number += questions
        tokens += questions * min(cells.get(name.removeprefix("tldr_"), limit), limit)
    if "test" in measured:
        return Answers(number * samples, measured["test"], measured=True)
    return Answers(number * samples, tokens / number if number else 0.0, measured=False)
