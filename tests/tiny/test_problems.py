"""The committed problem sets are what the seed rebuilds, disjoint, and of the promised sizes."""

import json
from pathlib import Path

import pytest

from stages._params import load_params
from stages.data.problems import read_problems
from stages.tiny.chains import parse_prompt, solve
from stages.tiny.problems import problem_sets

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("system1", "system2", "control", "test")


@pytest.mark.parametrize("name", NAMES)
def test_committed_sets_are_rebuilt_from_the_seed(name):
    rows = [json.loads(line) for line in (ROOT / "data" / "tiny" / f"{name}.jsonl").read_text().splitlines()]
    assert rows == problem_sets(load_params(ROOT).tiny)[name]


def test_sets_are_disjoint_and_gold_answers_right():
    prompts = []
    for name in NAMES:
        for problem in read_problems(ROOT / "data" / "tiny" / f"{name}.jsonl"):
            chain = parse_prompt(problem.prompt)
            assert problem.gold == str(solve(chain))
            assert problem.group == f"length-{chain.length}"
            prompts.append(problem.prompt)
    assert len(set(prompts)) == len(prompts)


def test_sizes_and_lengths():
    lengths = {
        name: {parse_prompt(p.prompt).length for p in read_problems(ROOT / "data" / "tiny" / f"{name}.jsonl")}
        for name in NAMES
    }
    assert lengths == {
        "system1": {1, 2, 3},
        "system2": {5, 6, 7, 8},
        "control": set(range(1, 9)),
        "test": set(range(1, 9)),
    }
    assert len(read_problems(ROOT / "data" / "tiny" / "test.jsonl")) >= 1000
