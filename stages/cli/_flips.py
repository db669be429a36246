"""Questions whose correctness changed, with what both models wrote: for the page of `tldr report --html`.

Reads artifacts/evaluations/{base,candidate}/responses.parquet and the problem file of the test set where they are; a fresh
clone has neither, and gets a sentence instead of the traces. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._errors import UserError
from stages._params import Params

if TYPE_CHECKING:
    from stages.evidence.figures import Flip
    from stages.page.traces import FlipSection, Trace

ITEMS = ("base", "candidate")
COLUMNS = ("task", "question_id", "sample_index", "text", "answer", "num_tokens")
AGAIN = "run `tldr repro evaluate` to make both again"


def flip_section(
    root: Path, params: Params, report: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]
) -> FlipSection:
    """`base` and `candidate` are question tables by task, of the same questions."""
    from stages.evidence.figures import flips
    from stages.page.traces import FlipSection, ShownFlip, chosen, flip_rows

    found = flips(base, candidate)
    selected = chosen(found)
    traces, missing = _traces(root, selected, {"base": base, "candidate": candidate}) if selected else ([], None)
    problems = _problems(root, params) if traces else {}
    shown = []
    for flip, (before, after) in zip(selected, traces, strict=False):
        problem, gold = problems.get(flip.question_id, (None, None))
        shown.append(ShownFlip(flip, problem, gold, before, after))
    return FlipSection(
        rows=flip_rows(found, report["tasks"]),
        num_lost=sum(flip.kind == "lost" for flip in found),
        num_gained=sum(flip.kind == "gained" for flip in found),
        num_questions=report["baseline"]["num_questions"],
        shown=shown,
        missing=missing,
    )


def _traces(
    root: Path, flips: Sequence[Flip], tables: Mapping[str, Mapping[str, Any]]
) -> tuple[list[tuple[Trace, Trace]], str | None]:
    """(before, after) of every flip, or none and why. Traces of other answers than the tables count are not shown."""
    paths = {item: root / "artifacts" / "evaluations" / item / "responses.parquet" for item in ITEMS}
    absent = [str(path.relative_to(root)) for path in paths.values() if not path.is_file()]
    if absent:
        return [], (
            f"The traces are not in this checkout ({' and '.join(absent)}): git does not track them. `dvc pull` fetches them "
            "if a DVC remote holds them, `tldr repro evaluate` makes them anew."
        )
    sides = {item: _read(path, flips) for item, path in paths.items()}
    pairs = []
    for flip in flips:
        pair = [_trace(sides[item], flip, tables[item][flip.task]) for item in ITEMS]
        if pair[0] is None or pair[1] is None:
            return [], f"The traces in artifacts/evaluations are of other answers than the question tables; {AGAIN}."
        pairs.append((pair[0], pair[1]))
    return pairs, None


def _read(path: Path, flips: Sequence[Flip]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Rows of the flipped questions only: all answers of a large run need not fit in memory."""
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    wanted = sorted({flip.question_id for flip in flips})
    try:
        rows = parquet.read_table(path, columns=list(COLUMNS), filters=[("question_id", "in", wanted)]).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}); {AGAIN}.") from None
    return {(row["task"], row["question_id"], row["sample_index"]): row for row in rows}


def _trace(rows: Mapping[tuple[str, str, int], Mapping[str, Any]], flip: Flip, table: Any) -> Trace | None:
    """None unless the answer is there and as long as the table says."""
    from stages.page.traces import Trace

    row = rows.get((flip.task, flip.question_id, flip.sample))
    question = table.question_ids.index(flip.question_id)
    num_tokens = int(table.tokens[question, flip.sample])
    if row is None or row["num_tokens"] != num_tokens:
        return None
    return Trace(row["text"], row["answer"], bool(table.correct[question, flip.sample]), num_tokens)


def _problems(root: Path, params: Params) -> dict[str, tuple[str, str]]:
    """(problem, gold) by id, of the test set's own problem file; other benchmarks number their questions themselves."""
    from stages.data.problems import read_problems

    try:
        return {problem.id: (problem.prompt, problem.gold) for problem in read_problems(root / params.data.test.path)}
    except UserError:
        return {}
