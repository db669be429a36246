"""The fresh test set: as large as the committed one, and known from none of the sets."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from stages._errors import UserError
from stages.ablation.fresh_test import fresh_test, num_known
from stages.data.overlap import Likeness, find_overlaps
from stages.data.problems import read_problems
from tests.paths import ROOT

SETS = {
    name: read_problems(ROOT / "data" / "tiny" / f"{name}.jsonl") for name in ("system1", "system2", "control", "test")
}
ALIKE = Likeness(8, 0.5, 0.8)
FRESH = fresh_test(SETS, 2, ALIKE)


def answer(prompt):
    """The prompt's result, without the project's arithmetic."""
    start, *steps = re.findall(r"Q: (\d+)|[a-h] ([-+*] \d+)", prompt)
    value = int(start[0])
    for _, step in steps:
        value = eval(f"({value} {step}) % 11")
    return value


def test_it_is_as_large_as_the_committed_one_at_every_length():
    assert Counter(p.group for p in FRESH) == Counter(p.group for p in SETS["test"])
    assert len({p.id for p in FRESH}) == len({p.prompt for p in FRESH}) == len(FRESH)
    assert {(p.group, p.difficulty) for p in FRESH} == {(p.group, p.difficulty) for p in SETS["test"]}
    assert [p.difficulty for p in FRESH] == sorted(p.difficulty for p in FRESH)


def test_its_answers_are_right():
    assert [int(p.gold) for p in FRESH] == [answer(p.prompt) for p in FRESH]


def test_no_problem_is_in_a_set_that_trains_or_steers_and_of_the_test_set_only_single_operations():
    prompts = {p.prompt for p in FRESH}
    for name in ("system1", "system2", "control"):
        assert prompts & {p.prompt for p in SETS[name]} == set()
    known = prompts & {p.prompt for p in SETS["test"]}
    assert {len(prompt.split()) for prompt in known} == {6}  # Q: 9 a + 8 ?
    assert num_known(FRESH, SETS["test"]) == len(known)


@pytest.mark.parametrize("rule", [ALIKE, Likeness(4, 0.5, 0.8)])
def test_it_passes_the_overlap_check_of_the_pipeline(rule):
    """The second is so strict that the committed sets do not pass it, and a set drawn for the first does not either."""

    def alike(problems):
        known = {name: SETS[name] for name in ("system1", "system2", "control")}
        return {o.second_id for o in find_overlaps(known | {"test": problems}, rule) if o.second_set == "test"}

    assert alike(fresh_test(SETS, 2, rule)) == set()
    assert (len(alike(FRESH)) > 0) == (rule != ALIKE)


def test_the_seed_decides():
    assert fresh_test(SETS, 2, ALIKE) == FRESH
    assert len({p.prompt for p in fresh_test(SETS, 3, ALIKE)} - {p.prompt for p in FRESH}) > 800


def test_other_tasks_and_lengths_without_chains_left_are_refused():
    foreign = SETS | {"test": [replace(SETS["test"][0], group="algebra")]}
    with pytest.raises(UserError, match="is no chain of the tiny task"):
        fresh_test(foreign, 2, ALIKE)
    crowded = SETS | {"test": [p for p in SETS["test"] if p.group == "length-1"] * 3}
    with pytest.raises(UserError, match="No chain of length 1 is left"):
        fresh_test(crowded, 2, ALIKE)
