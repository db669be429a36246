"""The references that a ratio is steered by, and whether they are far enough apart. Numbers in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

LARGEST = 1e9  # magnitude beyond which a measurement is refused


@dataclass(frozen=True)
class Bounds:
    """References on the control set: the short-CoT model (or estimate) and the original long-CoT model."""

    short_tokens: float
    long_tokens: float
    short_accuracy: float
    long_accuracy: float

    def __post_init__(self) -> None:
        require_finite(**vars(self))


@dataclass(frozen=True)
class BoundErrors:
    """Standard errors of `Bounds`, field by field; 0 for a figure that was chosen rather than measured."""

    short_tokens: float
    long_tokens: float
    short_accuracy: float
    long_accuracy: float

    def __post_init__(self) -> None:
        require_finite(**vars(self))
        for field in fields(self):
            if getattr(self, field.name) < 0.0:
                raise ValueError(f"the standard error of {field.name} is negative: {getattr(self, field.name)!r}")


def check_bounds(bounds: Bounds, errors: BoundErrors, num_errors: float) -> None:
    """ValueError unless both gaps have the right sign and exceed `num_errors` standard errors of their difference."""
    require_finite(num_errors=num_errors)
    for name, unit in (("tokens", "tokens"), ("accuracy", "as a fraction")):
        long, short = getattr(bounds, f"long_{name}"), getattr(bounds, f"short_{name}")
        error = math.hypot(getattr(errors, f"long_{name}"), getattr(errors, f"short_{name}"))
        gap = long - short
        if gap <= 0.0:
            raise ValueError(f"long_{name} ({long:g}) must be larger than short_{name} ({short:g})")
        if gap <= num_errors * error:
            raise ValueError(
                f"long_{name} ({long:g}) and short_{name} ({short:g}) differ by {gap:g} ({unit}), which is within "
                f"{num_errors:g} standard errors ({error:g} each)"
            )


def require_finite(**values: float) -> None:
    """ValueError that names the first value that is not a number of magnitude at most `LARGEST`."""
    for name, value in values.items():
        if not (math.isfinite(value) and abs(value) <= LARGEST):
            raise ValueError(f"{name} must be a number of magnitude at most {LARGEST:g}, not {value!r}")
