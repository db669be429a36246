"""params.yaml, checked once: every number of the pipeline, one class per top-level block, no default values.

Reads params.yaml with a YAML 1.2 reader (DVC writes `2e-05`, which YAML 1.1 readers take for text).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages._errors import UserError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
OUTSIDE = "must be a relative path that stays inside the checkout"


def _full_commit(revision: str) -> str:
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError("must be a full commit of 40 hex digits, because a branch or tag moves")
    return revision


def _lies_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return parts != () and ".." not in parts and parts[0] not in ("/", ".git", ".dvc", ".tldr")


def _inside(path: str) -> str:
    if not _lies_inside(path):
        raise ValueError(OUTSIDE)
    return path


Commit = Annotated[str, AfterValidator(_full_commit)]
InnerPath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Block(BaseModel):
    """Unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelParams(Block):
    path: Text
    dtype: Literal["float32", "bfloat16"]


class ProblemFile(Block):
    path: Text


class DataParams(Block):
    verifier: Literal["exact", "math"]
    system1: ProblemFile
    system2: ProblemFile
    control: ProblemFile
    test: ProblemFile
    overlap_ngram: Count
    overlap_share: Annotated[float, Field(gt=0.0, le=1.0)]


class DecodeParams(Block):
    temperature: NonNegative
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_tokens: Count


class ContainerParams(Block):
    engine: Literal["host", "docker", "podman", "apptainer"]
    device: Literal["cpu", "cuda"]
    shm_gb: Positive
    memory_gb: Positive | None
    pids_limit: Count


class EngineParams(Block):
    name: Literal["hf"]
    processes: Count
    threads: Count
    batch_size: Count
    evict_every: Count


class SampleParams(Block):
    samples_per_problem: Count


class LabelParams(Block):
    system2_choice: Literal["shortest", "longest", "median", "all"]
    min_tokens: Count
    min_thought_tokens: Annotated[int, Field(ge=0)]
    max_verifier_error_rate: Share
    histogram_bins: Count


class ShortBoundParams(Block):
    source: Literal["self", "model"]
    path: str | None
    accuracy_tolerance: Positive

    @model_validator(mode="after")
    def _model_has_path(self) -> ShortBoundParams:
        if (self.source == "model") != (self.path is not None):
            raise ValueError("source: model needs a path, source: self takes path: null")
        return self


class RatioParams(Block):
    init: Share
    controller: Literal["robust", "paper"]
    schedule: Literal["dynamic", "static", "linear", "cosine", "random"]
    final: Share
    eta: Positive
    smoothing: Share
    floor: Annotated[float, Field(ge=0.0, lt=0.5)]
    benefit_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    control_samples: Count
    bound_samples: Count
    short_bound: ShortBoundParams
    num_errors: NonNegative
    on_noisy_control: Literal["error", "lower_eta"]


class TrainParams(Block):
    max_steps: Count
    update_every: Count
    batch_size: Count
    micro_batch_size: Count
    lr: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    max_grad_norm: Positive
    max_length: Count
    unit: Literal["examples"]

    @model_validator(mode="after")
    def _windows_are_whole(self) -> TrainParams:
        if self.max_steps % self.update_every:
            raise ValueError(f"max_steps {self.max_steps} must be a multiple of update_every {self.update_every}")
        return self


class SelectParams(Block):
    margin: OpenShare
    alpha: OpenShare
    power: OpenShare


class EvaluateParams(Block):
    tasks: Annotated[list[Text], Field(min_length=1)]
    samples: Count
    margin: OpenShare
    alpha: OpenShare
    resamples: Annotated[int, Field(ge=1000)]


class HubRepo(Block):
    repo: Annotated[str, Field(pattern=r"^([\w.-]+/)?[\w.-]+$")]
    revision: Commit


class HubFile(HubRepo):
    file: InnerPath
    sha256: Sha256 | None
    path: InnerPath


class FetchParams(Block):
    """What `tldr fetch` downloads; read by no stage. No empty list: DVC breaks the file when it writes `[]` over a list."""

    model: HubRepo | None
    short_model: HubRepo | None
    data: Annotated[list[HubFile], Field(min_length=1)] | None


class TinyParams(Block):
    """Recipe of the shipped reasoner; used by `tldr tiny` only, by no stage."""

    seed: int
    hidden_size: Count
    intermediate_size: Count
    num_layers: Count
    num_heads: Count
    num_steps: Count
    tokens_per_step: Count
    num_processes: Count
    lr: Positive
    warmup_steps: Count
    weight_decay: NonNegative
    surplus_error: Share
    surplus_until: OpenShare
    few_checks_until: Share
    num_system1: Count
    num_system2: Count
    num_control: Count
    num_test: Count


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

    @model_validator(mode="after")
    def _fetched_models_have_paths(self) -> Params:
        if self.fetch.short_model is not None and self.ratio.short_bound.path is None:
            raise ValueError("fetch.short_model needs ratio.short_bound.source: model, and its path")
        for repo, key, path in (
            (self.fetch.model, "model.path", self.model.path),
            (self.fetch.short_model, "ratio.short_bound.path", self.ratio.short_bound.path),
        ):
            if repo is not None and not _lies_inside(path or ""):
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
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_describe(item) for item in error.errors())
        raise UserError(f"{name}: {problems}. Correct it there (or in your -S options) and run again.") from None


def _describe(item: Any) -> str:
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
