"""A fresh test set of the tiny task: as many chains of each length as the committed one, none of them known from it.

Drawn anew until the overlap check of label-by-length finds nothing in common with any committed set. One exception: of the
352 chains of one operation the committed sets hold nearly all, so at `CROWDED` lengths only system1, system2 and control,
which train and steer, are avoided. Pure: problems in, problems out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from stages._errors import UserError
from stages.data.overlap import Likeness, find_overlaps
from stages.data.problems import Problem
from stages.tiny.chains import MAX_LENGTH, prompt_text, random_chain, solve

CROWDED = (1,)
MAX_DRAWS = 100_000  # for one chain; far beyond what any length needs that has chains left
FRESH = "fresh"


def fresh_test(sets: Mapping[str, Sequence[Problem]], seed: int, alike: Likeness) -> list[Problem]:
    """`sets`: system1, system2, control and test; `alike` as for `find_overlaps`. Shortest chains first.

    UserError if `sets` are not of the tiny task, or a length has no chains left.
    """
    wanted = Counter(_length(problem) for problem in sets["test"])
    known = {name: list(problems) for name, problems in sets.items()}
    known["test"] = [problem for problem in sets["test"] if _length(problem) not in CROWDED]
    taken = {problem.prompt for problems in known.values() for problem in problems}
    rng = Random(f"ablation-test/{seed}")
    chosen: list[Problem] = []
    while missing := wanted - Counter(_length(problem) for problem in chosen):
        chosen += [_drawn(length, rng, taken) for length in sorted(missing.elements())]
        found = find_overlaps(known | {FRESH: chosen}, alike)
        known_already = {overlap.second_id for overlap in found if overlap.second_set == FRESH}
        chosen = [problem for problem in chosen if problem.id not in known_already]
    chosen.sort(key=_length)
    return [
        Problem(f"{FRESH}-{seed}-{index:04d}", problem.prompt, problem.gold, problem.group, problem.difficulty)
        for index, problem in enumerate(chosen)
    ]


def num_known(fresh: Sequence[Problem], test: Sequence[Problem]) -> int:
    """Problems of `fresh` that `test` has too, all of `CROWDED` lengths."""
    return len({problem.prompt for problem in fresh} & {problem.prompt for problem in test})


def _drawn(length: int, rng: Random, taken: set[str]) -> Problem:
    """A chain whose prompt is not `taken`, which it then is."""
    for _ in range(MAX_DRAWS):
        chain = random_chain(length, rng)
        prompt = prompt_text(chain)
        if prompt not in taken:
            taken.add(prompt)
            return Problem(prompt, prompt, str(solve(chain)), f"length-{length}", float(length))
    raise UserError(f"No chain of length {length} is left for a fresh test set; make data.test smaller.")


def _length(problem: Problem) -> int:
    length = int(problem.difficulty or 0)
    if problem.group != f"length-{length}" or not 1 <= length <= MAX_LENGTH:
        raise UserError(
            f"Test problem {problem.id} is no chain of the tiny task, of which alone a fresh test set can be made; "
            "set data.* back to data/tiny."
        )
    return length
