"""Which settings a controller takes on the command line, where the ones that are not given come from, and their bounds.

Reads params.yaml for those of `robust` and `lagrangian`; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stages._errors import UserError
from stages._param_blocks import RatioParams
from stages._params import load_params
from stages.cli._project import project_root

PUBLISHED = ("eta", "smoothing", "floor", "benefit_smoothing")
DUAL = ("margin", "dual_step", "dead_zone")
READ_BY = {"paper": PUBLISHED, "robust": PUBLISHED, "lagrangian": ("floor", *DUAL, "loss_se")}
NAMES = (*PUBLISHED, *DUAL, "loss_se")
PAPER = {
    "eta": 4.0,
    "smoothing": 1e-4,
    "floor": 0.0,
    "benefit_smoothing": 0.0,
}  # arXiv 2506.02678 and the authors' code
ASKED = {"robust": "--eta, --smoothing and --floor", "lagrangian": "--floor, --margin, --dual-step and --dead-zone"}


def settings_for(controller: str, given: Mapping[str, float | None]) -> dict[str, float]:
    """What is given, else the paper's values (paper) or those of params.yaml; UserError for a setting that is not read."""
    read = READ_BY[controller]
    for name, value in given.items():
        if value is not None and name not in read:
            raise UserError(f"--{_option(name)} is not read by the {controller} controller; leave it out.")
    values = {name: given[name] for name in read}
    if "loss_se" in values and values["loss_se"] is None:
        values["loss_se"] = 0.0
    default: Any = PAPER
    if controller != "paper" and None in values.values():
        default = _ratio_block(controller).model_dump()
    settings = {name: float(default[name] if value is None else value) for name, value in values.items()}
    _check(settings, controller)
    return settings


def as_arguments(settings: Mapping[str, float]) -> dict[str, Any]:
    """`settings` as the arguments of `stages.core.ratio.simulate`; lagrangian does not read eta and smoothing."""
    if "margin" not in settings:
        return dict(settings)
    from stages.core.ratio import Dual

    dual = Dual(*(settings[name] for name in DUAL))
    return {"eta": 0.0, "smoothing": 0.0, "floor": settings["floor"], "loss_error": settings["loss_se"], "dual": dual}


def _ratio_block(controller: str) -> RatioParams:
    try:
        root = project_root()
    except UserError:
        raise UserError(
            f"The {controller} controller takes its settings from params.yaml and there is none here; "
            f"give {ASKED[controller]}, or run in a tldr checkout."
        ) from None
    return load_params(root).ratio


def _check(settings: Mapping[str, float], controller: str) -> None:
    lowest = "above 0 and below 0.5" if controller == "lagrangian" else "at least 0 and below 0.5"
    ranges: dict[str, tuple[Callable[[float], bool], str]] = {
        "eta": (lambda value: 0.0 < value <= 1e9, "above 0"),
        "smoothing": (lambda value: 0.0 <= value <= 1.0, "between 0 and 1"),
        "floor": (lambda value: (value > 0.0 or controller != "lagrangian") and 0.0 <= value < 0.5, lowest),
        "benefit_smoothing": (lambda value: 0.0 <= value < 1.0, "at least 0 and below 1"),
        "margin": (lambda value: 0.0 < value < 1.0, "above 0 and below 1"),
        "dual_step": (lambda value: 0.0 < value <= 1e9, "above 0"),
        "dead_zone": (lambda value: 0.0 <= value <= 1e9, "at least 0"),
        "loss_se": (lambda value: 0.0 <= value <= 1.0, "between 0 and 1"),
    }
    for name, value in settings.items():
        valid, bound = ranges[name]
        if not valid(value):
            raise UserError(f"--{_option(name)} {value:g} is not {bound}; correct it and run again.")


def _option(name: str) -> str:
    return name.replace("_", "-")
