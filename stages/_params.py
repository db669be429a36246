"""params.yaml, checked once: every number of the pipeline, one class per top-level block, no default values.

Reads params.yaml with a YAML 1.2 reader (DVC writes `2e-05`, which YAML 1.1 readers take for text). The blocks are in
`stages._param_blocks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError, model_validator

from stages._errors import UserError
from stages._param_blocks import (
    OUTSIDE,
    Block,
    ContainerParams,
    DataParams,
    DecodeParams,
    EngineParams,
    EvaluateParams,
    FetchParams,
    LabelParams,
    ModelParams,
    RatioParams,
    SampleParams,
    SelectParams,
    Text,
    TinyParams,
    TrainParams,
    lies_inside,
)


class Params(Block):
    """The whole of params.yaml."""

    profile: Text
    seed: int
    model: ModelParams
    data: DataParams
    decode: DecodeParams
    container: ContainerParams
    engine: EngineParams
    sample: SampleParams
    label: LabelParams
    ratio: RatioParams
    train: TrainParams
    select: SelectParams
    evaluate: EvaluateParams
    fetch: FetchParams
    tiny: TinyParams

    @property
    def budgets(self) -> list[int]:
        """evaluate.budgets in tokens, rising; one beyond decode.max_tokens counts as that limit, where answers end."""
        return sorted({min(budget, self.decode.max_tokens) for budget in self.evaluate.budgets})

    @model_validator(mode="after")
    def _batch_invariance_needs_a_gpu(self) -> Params:
        if self.engine.name == "vllm" and self.engine.vllm.batch_invariant and self.container.device == "cpu":
            raise ValueError("engine.vllm.batch_invariant needs container.device: cuda; vLLM has no such mode on a CPU")
        return self

    @model_validator(mode="after")
    def _colocated_is_vllm(self) -> Params:
        if self.train.control_engine == "colocated" and self.engine.name != "vllm":
            raise ValueError("train.control_engine: colocated needs engine.name: vllm")
        return self

    @model_validator(mode="after")
    def _constraint_lets_a_checkpoint_pass(self) -> Params:
        steered = self.ratio.controller == "lagrangian" and self.ratio.schedule == "dynamic"
        if steered and self.ratio.margin >= self.select.margin:
            raise ValueError(
                f"ratio.margin {self.ratio.margin:g} must be below select.margin {self.select.margin:g}: lagrangian holds "
                "the accuracy at ratio.margin, where no checkpoint could be shown to have lost less"
            )
        return self

    @model_validator(mode="after")
    def _fetched_models_have_paths(self) -> Params:
        if self.fetch.short_model is not None and self.ratio.short_bound.path is None:
            raise ValueError("fetch.short_model needs ratio.short_bound.source: model, and its path")
        for repo, key, path in (
            (self.fetch.model, "model.path", self.model.path),
            (self.fetch.short_model, "ratio.short_bound.path", self.ratio.short_bound.path),
        ):
            if repo is not None and not lies_inside(path or ""):
                raise ValueError(f"{key} = {path!r} is fetched and {OUTSIDE}")
        return self


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 document as plain dicts and lists."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the command from the root of a tldr checkout.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it and run again."
        ) from None


def check_params(document: Any, name: str) -> Params:
    """The checked parameters; UserError names key, value and bound of everything that is wrong."""
    if not isinstance(document, dict):
        raise UserError(f"{name} must be a mapping of blocks; restore it with `git checkout -- {name}`.")
    return validated(Params, document, name, "Correct it there (or in your -S options) and run again.")


Kind = TypeVar("Kind", bound=Block)


def validated(kind: type[Kind], document: Any, name: str, advice: str = "Correct it there and run again.") -> Kind:
    """The contents of the file `name` as a `kind`; UserError naming every key that is wrong, and the `advice`."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_described(item) for item in error.errors())
        raise UserError(f"{name}: {problems}. {advice}") from None


def _described(item: Any) -> str:
    """A sentence part for one error of pydantic: key, value and what is wrong."""
    key = ".".join(str(part) for part in item["loc"])
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if item["type"] == "missing":
        return f"key {key} is missing"
    message = message.removeprefix("value error, ")
    return f"{key} = {item['input']!r}: {message}" if key else message


def used(params: Params, keys: tuple[str, ...]) -> dict[str, Any]:
    """The values under dotted keys such as `decode` or `data.verifier`, as plain data: what a stage depends on."""
    values = {}
    for key in keys:
        value: Any = params.model_dump()
        for part in key.split("."):
            value = value[part]
        values[key] = value
    return values


def load_params(root: Path) -> Params:
    """Read and check `root`/params.yaml; its profile must be one of `root`/profiles."""
    params = check_params(read_yaml(root / "params.yaml"), "params.yaml")
    known = sorted(path.stem for path in (root / "profiles").glob("*.yaml"))
    if known and params.profile not in known:
        raise UserError(f"params.yaml: unknown profile {params.profile!r}; choose one of {', '.join(known)}.")
    return params
