"""The plan of the ablation: arms, seeds and the numbers that are not in params.yaml.

Reads ablation.yaml (or another plan file); every key must be there, there are no defaults. An arm is a name and values of the
block `ratio`; all else is params.yaml, alike for all arms, so compute and checkpoint selection are equal.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from stages._errors import UserError
from stages._param_blocks import Block, Count
from stages._params import check_params, read_yaml, validated

FILE = "ablation.yaml"
Seeds = Annotated[list[int], Field(min_length=1)]
ArmName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
# Keys of `ratio` that say how the control set is measured, not how the share moves: alike for all arms.
MEASURING = ("control_questions", "control_samples", "bound_samples", "short_bound", "num_errors", "on_noisy_control")


class EnginePlan(Block):
    """`engine.processes` and `engine.threads` of each run."""

    processes: Count
    threads: Count


class FrontierPlan(Block):
    """Of the simulated oracle frontier: chains per length, and the seed."""

    chains: Count
    seed: int


class Plan(Block):
    """`variants`: of each group only the arm that did best on the tuning seeds is reported."""

    jobs: Count
    engine: EnginePlan
    tune_seeds: Seeds
    report_seeds: Seeds
    test_seed: int
    frontier: FrontierPlan
    arms: Annotated[dict[ArmName, dict[str, Any]], Field(min_length=2)]
    variants: list[Annotated[list[str], Field(min_length=2)]]

    @property
    def static(self) -> list[str]:
        """Arms with a fixed share."""
        return self.of_schedule("static")

    @property
    def dynamic(self) -> list[str]:
        """Arms whose share follows the control set."""
        return self.of_schedule("dynamic")

    @property
    def tuned(self) -> list[str]:
        """Arms that the tuning seeds choose among, fixed shares and variants: nothing about the others is chosen."""
        choices = {*self.static, *(name for group in self.variants for name in group)}
        return [name for name in self.arms if name in choices]

    def of_schedule(self, schedule: str) -> list[str]:
        return [name for name, values in self.arms.items() if values["schedule"] == schedule]

    @model_validator(mode="after")
    def _seeds_differ(self) -> Plan:
        for key in ("tune_seeds", "report_seeds"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} holds a seed twice; every run needs its own")
        common = sorted(set(self.tune_seeds) & set(self.report_seeds))
        if common:
            raise ValueError(
                f"seed {common[0]} is in tune_seeds and in report_seeds; what was tuned on is not reported"
            )
        return self

    @model_validator(mode="after")
    def _arms_are_comparable(self) -> Plan:
        seen: dict[str, str] = {}
        for name, values in self.arms.items():
            if "schedule" not in values:
                raise ValueError(f"arm {name} has no schedule; write one, such as schedule: dynamic")
            for key in MEASURING:
                if key in values:
                    raise ValueError(
                        f"arm {name} sets ratio.{key}, which must be alike for all arms; set it in params.yaml"
                    )
            other = seen.setdefault(repr(sorted(values.items())), name)
            if other != name:
                raise ValueError(f"arms {other} and {name} are the same; remove one")
        if not self.static:
            raise ValueError(
                "no arm has schedule: static, and the best static share is what the others are compared with"
            )
        return self

    @model_validator(mode="after")
    def _variants_are_arms(self) -> Plan:
        named = [name for group in self.variants for name in group]
        for name in named:
            if name not in self.arms:
                raise ValueError(f"variants names {name}, which is no arm")
            if named.count(name) > 1:
                raise ValueError(f"variants names {name} twice")
        return self


def load_plan(path: Path, document: dict[str, Any]) -> Plan:
    """The plan in `path`, each arm checked against `document`, the contents of params.yaml; UserError names what is wrong."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; restore it with git, or name another plan with --plan.")
    contents = read_yaml(path)
    if not isinstance(contents, dict):
        raise UserError(f"{path} must be a mapping with the keys {', '.join(Plan.model_fields)}.")
    plan = validated(Plan, contents, str(path))
    for name in plan.arms:
        check_params(run_document(document, plan, name, plan.tune_seeds[0]), f"{path}, arm {name}")
    return plan


def run_document(document: dict[str, Any], plan: Plan, arm: str, seed: int, test: str | None = None) -> dict[str, Any]:
    """params.yaml of one run; `test` is the path of another test set than that of `document`."""
    changed = copy.deepcopy(document)
    changed["seed"] = seed
    changed["engine"] |= plan.engine.model_dump()
    changed["ratio"] |= plan.arms[arm]
    if test is not None:
        changed["data"]["test"] = {"path": test}
    return changed
