"""The blocks of params.yaml, one class each: types and bounds, no default values.

Reads nothing; `stages._params` reads the file and checks it against these.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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


def _served(temperature: float) -> float:
    """vLLM raises a temperature below 0.01 to 0.01 without an error; 0 is greedy in every engine."""
    if temperature != 0.0 and not 0.01 <= temperature <= 2.0:
        raise ValueError("must be 0 (greedy) or from 0.01 to 2")
    return temperature


def lies_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return parts != () and ".." not in parts and parts[0] not in ("/", ".git", ".dvc", ".tldr")


def _inside(path: str) -> str:
    if not lies_inside(path):
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
    overlap_share_restated: Annotated[float, Field(gt=0.0, le=1.0)]


class RepetitionParams(Block):
    max_pattern_size: Count
    min_count: Annotated[int, Field(ge=2)]


class DecodeParams(Block):
    temperature: Annotated[float, AfterValidator(_served)]
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_tokens: Count
    repetition: RepetitionParams | None


class ContainerParams(Block):
    engine: Literal["host", "docker", "podman", "apptainer"]
    device: Literal["cpu", "cuda"]
    shm_gb: Positive
    memory_gb: Positive | None
    pids_limit: Count


class VllmParams(Block):
    tensor_parallel_size: Count
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)]
    kv_cache_gb: Positive | None
    max_prompt_tokens: Count
    enforce_eager: bool
    batch_invariant: bool


class EngineParams(Block):
    name: Literal["hf", "vllm"]
    processes: Count
    threads: Count
    batch_size: Count
    evict_every: Count
    vllm: VllmParams


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
    controller: Literal["robust", "paper", "lagrangian"]
    schedule: Literal["dynamic", "static", "linear", "cosine", "random"]
    final: Share
    eta: Positive
    smoothing: Share
    floor: Annotated[float, Field(ge=0.0, lt=0.5)]
    benefit_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    margin: OpenShare
    dual_step: Positive
    dead_zone: NonNegative
    control_questions: Annotated[int, Field(ge=8)] | None
    control_samples: Count
    bound_samples: Count
    short_bound: ShortBoundParams
    num_errors: NonNegative
    on_noisy_control: Literal["error", "lower_eta"]

    @property
    def has_floor(self) -> bool:
        """Whether `floor` bounds the share: under every controller but the published one, and in the random schedule."""
        return self.schedule == "random" or (self.schedule == "dynamic" and self.controller != "paper")

    @model_validator(mode="after")
    def _multiplier_is_bounded(self) -> RatioParams:
        if self.controller == "lagrangian" and self.floor == 0.0:
            raise ValueError("controller: lagrangian needs a floor above 0; it bounds the multiplier")
        return self


class LoraParams(Block):
    """Read with train.method: lora. peft's names; the adapters sit on every linear layer but the output layer."""

    rank: Count
    alpha: Positive
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]


class LaunchParams(Block):
    kind: Literal["single", "ddp", "fsdp2", "zero3"]
    num_processes: Count
    num_machines: Count

    @property
    def world_size(self) -> int:
        return self.num_processes * self.num_machines

    @model_validator(mode="after")
    def _single_is_one(self) -> LaunchParams:
        if self.kind == "single" and self.world_size > 1:
            raise ValueError("kind: single is one process; choose ddp, fsdp2 or zero3 for several")
        return self


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
    unit: Literal["examples", "tokens"]
    method: Literal["full", "lora"]
    lora: LoraParams
    attention: Literal["sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
    gradient_checkpointing: bool
    launch: LaunchParams
    control_engine: Literal["reload", "colocated", "live"]

    @property
    def padding_free(self) -> bool:
        """Whether the examples of a micro-batch stand in one row: sdpa would pay for the square of that row."""
        return self.attention != "sdpa"

    @model_validator(mode="after")
    def _windows_are_whole(self) -> TrainParams:
        if self.max_steps % self.update_every:
            raise ValueError(f"max_steps {self.max_steps} must be a multiple of update_every {self.update_every}")
        return self

    @model_validator(mode="after")
    def _batches_are_whole(self) -> TrainParams:
        share = self.micro_batch_size * self.launch.world_size
        if self.batch_size % share:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of micro_batch_size x processes = {share}, so that every "
                "process has as many micro-batches"
            )
        return self

    @model_validator(mode="after")
    def _the_model_is_in_one_piece(self) -> TrainParams:
        if self.control_engine != "reload" and (self.launch.kind != "single" or self.method == "lora"):
            raise ValueError(
                f"control_engine: {self.control_engine} answers with the model of one process that is trained as a whole; "
                "use reload with lora or with launch.kind other than single"
            )
        return self


class SelectParams(Block):
    margin: OpenShare
    alpha: OpenShare
    power: OpenShare
    candidates: Count


class EvaluateParams(Block):
    tasks: Annotated[list[Text], Field(min_length=1)]
    samples: Count
    budgets: Annotated[list[Count], Field(min_length=1)]
    margin: OpenShare
    alpha: OpenShare
    confidence: OpenShare
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
