"""The policy of the gate: what each benchmark must hold, and how sure the gate must be.

Takes a document as a YAML reader gives it and returns checked classes; ValueError names the key that is wrong. A policy
holds every number itself, there are no defaults here. Nothing is read or written; docs/gate.md describes the file.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

SCHEMA_VERSION = 1
TIERS = ("critical", "supporting", "advisory", "off_domain")
DECIDING = ("critical", "off_domain")  # tiers that must be shown to be within their limits
GATING = (*DECIDING, "supporting")  # tiers that fail on a shown regression
Range = tuple[Callable[[float], bool], str]
SHARE: Range = (lambda value: 0 <= value <= 1, "from 0 to 1")
LEVELS: dict[str, Range] = {
    "alpha": (lambda value: 0 < value < 0.5, "above 0 and below 0.5"),
    "confidence": (lambda value: 0.5 <= value < 1, "from 0.5 to below 1"),
}
COUNTS: dict[str, Range] = {
    "resamples": (lambda value: 1000 <= value <= 1_000_000, "from 1,000 to 1,000,000"),
    "seed": (lambda value: 0 <= value < 2**32, "from 0 to 4,294,967,295"),
}
LIMITS: dict[str, Range] = {
    "accuracy_margin": (lambda value: 0 < value < 1, "above 0 and below 1 (0.01 is one point)"),
    "min_token_reduction": (lambda value: -10 <= value < 1, "from -10 to below 1 (-0.05: at most 5 % longer)"),
    "max_truncation_rate": SHARE,
    "max_no_think_rate": SHARE,
}
RULES = ("tier", *LIMITS)
KEYS = ("schema_version", *LEVELS, *COUNTS, "defaults", "benchmarks")


@dataclass(frozen=True)
class Rules:
    """What one benchmark must hold; a limit of None is not checked.

    `accuracy_margin` is a loss, a share of questions; `min_token_reduction` the fraction of the baseline's tokens that must
    be saved (negative: that answers may be longer); the rates are shares of answers.
    """

    tier: str
    accuracy_margin: float
    min_token_reduction: float | None
    max_truncation_rate: float | None
    max_no_think_rate: float | None


@dataclass(frozen=True)
class Policy:
    """`alpha` is the one-sided level of the verdicts, `confidence` that of the token intervals (two-sided)."""

    alpha: float
    confidence: float
    resamples: int
    seed: int
    defaults: Rules
    benchmarks: Mapping[str, Rules]
    required: tuple[str, ...]

    def rules(self, benchmark: str) -> Rules:
        """Those of the entry with this name, else of the first pattern in the file that fits, else the defaults."""
        if benchmark in self.benchmarks:
            return self.benchmarks[benchmark]
        fitting = (rules for name, rules in self.benchmarks.items() if fnmatch.fnmatchcase(benchmark, name))
        return next(fitting, self.defaults)

    def missing(self, benchmarks: Collection[str]) -> list[str]:
        """Required names and patterns that none of `benchmarks` fits."""
        return [
            name
            for name in self.required
            if name not in benchmarks and not any(fnmatch.fnmatchcase(benchmark, name) for benchmark in benchmarks)
        ]


def check_policy(document: object) -> Policy:
    """The policy in a YAML document; ValueError with the key, the value and the bound of the first thing that is wrong."""
    values = _mapping("the policy", document)
    _check_keys("", values, KEYS, required=KEYS)
    version = values["schema_version"]
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(f"schema_version = {version!r}: this version of tldr reads {SCHEMA_VERSION}")
    defaults = _mapping("defaults", values["defaults"])
    _check_keys("defaults.", defaults, RULES, required=RULES)
    rules = Rules(**_checked("defaults.", defaults))
    benchmarks: dict[str, Rules] = {}
    required = []
    for name, entry in _mapping("benchmarks", {} if values["benchmarks"] is None else values["benchmarks"]).items():
        where = f"benchmarks.{name}"
        changes = _mapping(where, entry)
        _check_keys(f"{where}.", changes, (*RULES, "required"), required=())
        benchmarks[name] = replace(rules, **_checked(f"{where}.", changes))
        if _flag(f"{where}.required", changes.get("required", False)):
            required.append(name)
    levels = {key: _number(key, values[key], bound) for key, bound in LEVELS.items()}
    counts = {key: _count(key, values[key], bound) for key, bound in COUNTS.items()}
    return Policy(
        alpha=levels["alpha"],
        confidence=levels["confidence"],
        resamples=counts["resamples"],
        seed=counts["seed"],
        defaults=rules,
        benchmarks=benchmarks,
        required=tuple(required),
    )


def _mapping(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {_shown(value)} is not a mapping of keys to values")
    for key in value:
        if not isinstance(key, str) or not key:
            raise ValueError(f"{where}: the key {_shown(key)} is not text; put it in quotes")
    return value


def _check_keys(prefix: str, values: Mapping[str, Any], known: Iterable[str], required: Iterable[str]) -> None:
    names = list(known)
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(names)}"
            raise ValueError(f"unknown key {prefix}{key}; {hint}")
    for key in required:
        if key not in values:
            raise ValueError(f"key {prefix}{key} is missing")


def _checked(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Tier and limits among `values`; only a margin must be a number, every other limit may be empty."""
    checked: dict[str, Any] = {}
    if "tier" in values:
        if values["tier"] not in TIERS:
            raise ValueError(f"{prefix}tier = {_shown(values['tier'])}: must be one of {', '.join(TIERS)}")
        checked["tier"] = values["tier"]
    for key, bound in LIMITS.items():
        if key in values:
            off = values[key] is None and key != "accuracy_margin"
            checked[key] = None if off else _number(f"{prefix}{key}", values[key], bound)
    return checked


def _number(where: str, value: object, bound: Range) -> float:
    holds, text = bound
    if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):  # NaN holds no bound
        raise ValueError(f"{where} = {_shown(value)}: must be a number {text}")
    return float(value)


def _count(where: str, value: object, bound: Range) -> int:
    holds, text = bound
    if isinstance(value, bool) or not isinstance(value, int) or not holds(value):
        raise ValueError(f"{where} = {_shown(value)}: must be a whole number {text}")
    return value


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where} = {_shown(value)}: must be true or false")
    return value


def _shown(value: object) -> str:
    """A value as the user may find it in the file, on one line and short."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
