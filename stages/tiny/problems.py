"""The committed problem sets of the tiny task, rebuilt from a seed: disjoint by construction."""

from __future__ import annotations

from random import Random
from typing import Any

from stages._param_blocks import TinyParams
from stages.tiny.chains import Chain, prompt_text, random_chain, solve

EASY_LENGTHS = (1, 2, 3)
HARD_LENGTHS = (5, 6, 7, 8)
ALL_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8)


def _similarity_key(chain: Chain) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Step windows that no two problems with one answer may share: the whole chain, or any half of a long one."""
    half = max(1, (chain.length + 1) // 2)
    start = (("start", chain.start),)
    if chain.length <= 2:
        return (start + chain.steps,)
    return (start + chain.steps[:half], *(chain.steps[i : i + half] for i in range(1, chain.length - half + 1)))


def problem_sets(recipe: TinyParams) -> dict[str, list[dict[str, Any]]]:
    """Rows of system1 (easy), system2 (hard), control and test; equal numbers of every length, up to one.

    Two problems with the same answer never share half of their steps at the same place, so that the overlap check of
    label-by-length holds with room to spare.
    """
    rng = Random(f"tiny-problems/{recipe.seed}")
    seen: set[tuple[Any, ...]] = set()
    sets = {}
    plan = {
        "test": (recipe.num_test, ALL_LENGTHS),
        "control": (recipe.num_control, ALL_LENGTHS),
        "system1": (recipe.num_system1, EASY_LENGTHS),
        "system2": (recipe.num_system2, HARD_LENGTHS),
    }
    for name, (count, lengths) in plan.items():
        chains = [_fresh_chain(lengths[i % len(lengths)], rng, seen) for i in range(count)]
        chains.sort(key=lambda chain: chain.length)
        sets[name] = [_row(name, index, chain) for index, chain in enumerate(chains)]
    return sets


def _fresh_chain(length: int, rng: Random, seen: set[tuple[Any, ...]]) -> Chain:
    while True:
        chain = random_chain(length, rng)
        keys = {(solve(chain), length, index, key) for index, key in enumerate(_similarity_key(chain))}
        if not keys & seen:
            seen |= keys
            return chain


def _row(name: str, index: int, chain: Chain) -> dict[str, Any]:
    return {
        "id": f"{name}-{index:04d}",
        "prompt": prompt_text(chain),
        "gold": str(solve(chain)),
        "group": f"length-{chain.length}",
        "difficulty": chain.length,
    }
