"""Hand-made results of an ablation."""

from __future__ import annotations

from stages.ablation.plan import Plan
from stages.ablation.statistics import Tested, Trained

PLAN = Plan.model_validate(
    {
        "jobs": 2,
        "engine": {"processes": 1, "threads": 1},
        "tune_seeds": [1, 2],
        "report_seeds": [6, 7, 8],
        "test_seed": 2,
        "frontier": {"chains": 100, "seed": 1},
        "arms": {
            "half": {"schedule": "static", "init": 0.5},
            "all": {"schedule": "static", "init": 1.0},
            "up": {"schedule": "linear", "init": 0.0, "final": 1.0},
            "slow": {"schedule": "dynamic", "controller": "robust"},
            "fast": {"schedule": "dynamic", "controller": "robust", "benefit_smoothing": 0.0},
        },
        "variants": [["slow", "fast"]],
    }
)


def trained(tokens: float, *, fallback: bool = False, accuracy: float = 0.98, step: int = 48) -> Trained:
    return Trained(tokens, accuracy, 160.0, 0.985, step, fallback, 0.5)


def measured(tokens: float, accuracy: float, *, passed: bool = True, fallback: bool = False, step: int = 48) -> Tested:
    """The base model has 160 tokens and an accuracy of .985."""
    selected = trained(tokens, fallback=fallback, step=step)
    return Tested(selected, tokens, accuracy, 160.0, 0.985, 1 - tokens / 160, accuracy - 0.985, passed)
