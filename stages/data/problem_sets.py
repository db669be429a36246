r"""The problem sets of the mathematics profiles, made of published files without what occurs in two of them.

Reads data/sources.yaml, the files that it names, the YAML of tasks and the data block of params.yaml; writes the sets that
params.yaml names (stages/data/problems.py) and, beside the first of them, report.json: of every set how many rows its file has,
whose gold answers cannot be graded, and which problems were taken out because another set holds them. A row is left out for
one of: no answer in a worked solution; a gold answer that math-verify cannot read, or that an answer which repeats it in
\boxed{} does not match; the same as a problem of another set. Test questions are reported but never taken out. Used by `tldr
fetch`, by no stage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._io import digest, file_digest, read_json, write_json, write_jsonl
from stages._params import Params
from stages.core.answers import alternatives, boxed
from stages.data import benchmarks, gold_answers, overlap
from stages.data.benchmarks import read_benchmark
from stages.data.overlap import Overlap, find_overlaps, likeness
from stages.data.problems import Problem, read_problems
from stages.data.sources import SOLUTION, ProblemSet, Sources, set_benchmark, task_benchmarks, wanted_sets
from stages.verifier.grade import grade_all

REPORT = "report.json"
GIVEN_UP = ("control", "system1", "system2")  # which of two sets loses a problem that both hold: the first of these
NUMBER = re.compile(r"-?\d+(\.\d+)?")
LONGEST_ANSWER = 80  # characters of a solution that is taken whole for its answer


@dataclass
class Made:
    """A set in the making: `removed` holds the other problem (`set:id`) by the id of one that was taken out."""

    role: str
    source: str
    num_rows: int
    problems: list[Problem]
    no_answer: list[str] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    removed: dict[str, str] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """Counts, why rows are missing, and which."""
        return {
            "role": self.role,
            "source": self.source,
            "rows": self.num_rows,
            "no_answer": self.no_answer,
            "not_read": self.not_read,
            "removed": self.removed,
            "kept": len(self.problems),
        }


def made_sets(root: Path, sources: Sources, params: Params) -> dict[str, dict[str, Any]] | None:
    """The report's figures by path, if the sets that params.yaml names were made of what is there now; None if they are
    still to be made. UserError if a path holds something that `make_sets` did not write."""
    wanted = wanted_sets(sources, params)
    path = _report_path(root, wanted)
    report = read_json(path, "tldr fetch") if path.is_file() else {"sets": {}}
    for name in wanted:
        place = root / name
        if place.exists() and report["sets"].get(name, {}).get("digest") != file_digest(place):
            raise UserError(
                f"{name} was not made by `tldr fetch`, or was changed afterwards; move it away and run again, or give its "
                "set another path in params.yaml."
            )
    whole = all((root / name).is_file() for name in wanted) and report["sets"].keys() == wanted.keys()
    if not whole or report.get("made_of") != _made_of(root, sources, params):
        return None
    return dict(report["sets"])


def make_sets(root: Path, sources: Sources, params: Params) -> dict[str, dict[str, Any]]:
    """Make them; the report's figures by path. UserError for a file that cannot be read, or a set that nothing is left of."""
    wanted = wanted_sets(sources, params)
    made = {path: _read(root, sources, params, one) for path, one in wanted.items()}
    for each in made.values():
        _check_golds(each, params.engine.processes)
    own = {role: read_problems(root / path) for role, path in _own_files(root, wanted, params).items()}
    sets = {each.role: each.problems for each in made.values()} | own
    _take_out(made.values(), find_overlaps(sets, likeness(params)))
    for path, each in made.items():
        if not each.problems:
            raise UserError(
                f"Nothing is left of {each.source} for {path}: every row has no answer or is in another set."
            )
    figures = {}
    for path, each in made.items():
        write_jsonl(root / path, [_row(problem, sources.instruction) for problem in each.problems])
        figures[path] = each.figures | {"digest": file_digest(root / path)}
    write_json(_report_path(root, wanted), {"made_of": _made_of(root, sources, params), "sets": figures})
    return figures


def _report_path(root: Path, wanted: Mapping[str, ProblemSet]) -> Path:
    return (root / next(iter(wanted))).parent / REPORT


def _own_files(root: Path, wanted: Mapping[str, ProblemSet], params: Params) -> dict[str, str]:
    """Paths of the user's own problem files, by role: they take part in the comparison, and stay as they are."""
    paths = {role: getattr(params.data, role).path for role in ("system1", "system2", "control", "test")}
    return {role: path for role, path in paths.items() if path not in wanted and (root / path).is_file()}


def _made_of(root: Path, sources: Sources, params: Params) -> dict[str, Any]:
    """Everything that the sets depend on."""
    wanted = wanted_sets(sources, params)
    read = {made.file: root / sources.files[made.file].path for made in wanted.values() if made.file is not None}
    read |= _own_paths(root, wanted, params)
    tasks = task_benchmarks(root, params) if any(made.questions_of for made in wanted.values()) else {}
    read |= {name: benchmark.path for name, benchmark in tasks.items()}
    code = [Path(module.__file__ or "") for module in (benchmarks, gold_answers, overlap)]
    return {
        "files": {name: file_digest(path) for name, path in sorted(read.items())},
        "sets": {path: made.model_dump() for path, made in wanted.items()},
        "tasks": {
            name: digest(vars(replace(one, path=Path(one.path.name))) | {"path": None}) for name, one in tasks.items()
        },
        "instruction": sources.instruction,
        "overlap": asdict(likeness(params)),
        "code": digest([file_digest(path) for path in [*code, Path(__file__)]]),
    }


def _own_paths(root: Path, wanted: Mapping[str, ProblemSet], params: Params) -> dict[str, Path]:
    return {f"data.{role}": root / path for role, path in _own_files(root, wanted, params).items()}


def _read(root: Path, sources: Sources, params: Params, made: ProblemSet) -> Made:
    if made.file is None:
        problems = [
            replace(problem, id=f"{task}/{problem.id}", group=task)
            for task, benchmark in task_benchmarks(root, params).items()
            for problem in read_benchmark(benchmark)
        ]
        if not problems:
            raise UserError(
                "No task of evaluate.tasks reads a benchmark file, so there are no test questions to make a set of; name such "
                "tasks, or another data.test.path."
            )
        return Made(made.role, "evaluate.tasks", len(problems), problems)
    problems = read_benchmark(set_benchmark(root, sources, made))
    found = Made(made.role, sources.files[made.file].origin, len(problems), problems)
    if made.gold_format == SOLUTION:
        answers = {problem.id: answer_of(problem.gold) for problem in problems}
        found.no_answer = [problem.id for problem in problems if answers[problem.id] is None]
        found.problems = [
            replace(problem, gold=answer) for problem in problems if (answer := answers[problem.id]) is not None
        ]
    return found


def answer_of(solution: str) -> str | None:
    r"""The final answer of a worked solution: the last \boxed{...}, else the whole of a short single line; None if neither."""
    found = boxed(solution)
    if found is not None:
        return found.strip() or None
    text = solution.strip()
    return text if text and len(text) <= LONGEST_ANSWER and "\n" not in text else None


def _check_golds(made: Made, processes: int) -> None:
    """A gold answer has to be read as mathematics or words, and to match itself, or nobody could answer rightly."""
    items = [(rf"</think> \boxed{{{alternatives(p.gold)[0]}}}", "stop", p.gold) for p in made.problems]
    grades = grade_all(items, "math", processes)
    made.not_read = [
        problem.id
        for problem, grade in zip(made.problems, grades, strict=True)
        if not (grade.correct and _is_read(alternatives(problem.gold)[0]))
    ]
    if made.role != "test":
        bad = set(made.not_read)
        made.problems = [problem for problem in made.problems if problem.id not in bad]


def _is_read(gold: str) -> bool:
    """Whether math-verify finds more in it than the characters that it would compare: broken LaTeX matches itself too."""
    if NUMBER.fullmatch(gold):
        return True
    from math_verify import parse

    return any(not isinstance(found, str) for found in parse(f"${gold}$"))


def _take_out(made: Iterable[Made], overlaps: Sequence[Overlap]) -> None:
    """Of every pair one problem, from a set that is made; pairs of which one is gone already need nothing more."""
    by_role = {each.role: each for each in made}
    order = {role: place for place, role in enumerate(GIVEN_UP)}
    for pair in sorted(overlaps, key=lambda each: min(order.get(each.first_set, 9), order.get(each.second_set, 9))):
        ends = ((pair.first_set, pair.first_id), (pair.second_set, pair.second_id))
        if any(role in by_role and name in by_role[role].removed for role, name in ends):
            continue
        givers = sorted((end for end in ends if end[0] in order and end[0] in by_role), key=lambda end: order[end[0]])
        if givers:
            role, name = givers[0]
            (other,) = [end for end in ends if end != (role, name)]
            by_role[role].removed[name] = ":".join(other)
    for each in by_role.values():
        each.problems = [problem for problem in each.problems if problem.id not in each.removed]


def removed_by(figures: Mapping[str, Any]) -> dict[str, int]:
    """How many problems a set lost to each other set."""
    return dict(Counter(other.partition(":")[0] for other in figures["removed"].values()))


def _row(problem: Problem, instruction: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": problem.id, "prompt": f"{problem.prompt}\n{instruction}", "gold": problem.gold}
    return row if problem.group is None else row | {"group": problem.group}
