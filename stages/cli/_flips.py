"""Questions whose correctness changed, with what both models wrote: for the page of `tldr report --html`.

Reads artifacts/evaluations/{base,candidate} where they are, as `stages.data.evaluations` does; a fresh clone has neither, and
gets a sentence instead of the traces. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._params import Params
from stages.cli._comparison import reading

if TYPE_CHECKING:
    from stages.data.evaluations import Run
    from stages.evidence.estimates import QuestionTable
    from stages.evidence.figures import Flip
    from stages.page.traces import FlipSection, ShownFlip

ITEMS = ("base", "candidate")
AGAIN = "run `tldr repro evaluate` to make both again"
Tables = Mapping[str, "QuestionTable"]


def flip_section(root: Path, params: Params, report: Mapping[str, Any], base: Tables, candidate: Tables) -> FlipSection:
    """`base` and `candidate` are question tables by task, of the same questions."""
    from stages.evidence.figures import flips
    from stages.page.traces import FlipSection, chosen, flip_rows

    found = flips(base, candidate)
    selected = chosen(found)
    shown, missing = _traces(root, params, selected, (base, candidate)) if selected else ([], None)
    return FlipSection(
        rows=flip_rows(found, report["tasks"]),
        num_lost=sum(flip.kind == "lost" for flip in found),
        num_gained=sum(flip.kind == "gained" for flip in found),
        num_questions=report["baseline"]["num_questions"],
        shown=shown,
        missing=missing,
    )


def _traces(
    root: Path, params: Params, flips: Sequence[Flip], tables: tuple[Tables, Tables]
) -> tuple[list[ShownFlip], str | None]:
    """Every flip with the answers that show it, or none and why."""
    from stages.data.evaluations import open_run

    folders = [root / "artifacts" / "evaluations" / item for item in ITEMS]
    absent = [str(folder.relative_to(root)) for folder in folders if not (folder / "responses.parquet").is_file()]
    if absent:
        return [], (
            f"The traces are not in this checkout ({' and '.join(absent)}): git does not track responses.parquet. `dvc pull` "
            "fetches them if a DVC remote holds them, `tldr repro evaluate` makes them anew."
        )
    runs = [open_run(str(folder), root=root, settings=reading(params)) for folder in folders]
    if not all(_same_answers(flips, table, run) for table, run in zip(tables, runs, strict=True)):
        return [], f"The traces in artifacts/evaluations are of other answers than the question tables; {AGAIN}."
    return _shown(flips, tables, runs), None


def _same_answers(flips: Sequence[Flip], tables: Tables, run: Run) -> bool:
    """Whether the answers to these questions are as many and as long as the table says."""
    for flip in flips:
        ours, theirs = tables[flip.task], run.tables.get(flip.task)
        if theirs is None or flip.question_id not in theirs.question_ids:
            return False
        pair = [table.tokens[table.question_ids.index(flip.question_id)].tolist() for table in (ours, theirs)]
        if pair[0] != pair[1]:
            return False
    return True


def _shown(flips: Sequence[Flip], tables: tuple[Tables, Tables], runs: Sequence[Run]) -> list[ShownFlip]:
    from stages.page.traces import ShownFlip, Trace

    keys = {(flip.task, flip.question_id, flip.sample) for flip in flips}
    texts = [run.texts(keys) for run in runs]
    found = []
    for flip in flips:
        sides = []
        for table, written in zip(tables, texts, strict=True):
            answer = written[flip.task, flip.question_id, flip.sample]
            row = table[flip.task].question_ids.index(flip.question_id)
            correct, num_tokens = table[flip.task].correct[row, flip.sample], table[flip.task].tokens[row, flip.sample]
            sides.append(Trace(answer.text, answer.answer, bool(correct), int(num_tokens)))
        asked = texts[0][flip.task, flip.question_id, flip.sample]
        found.append(ShownFlip(flip, asked.problem or None, asked.gold or None, *sides))
    return found
