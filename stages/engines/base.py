"""The interface every engine serves, and the decode specification that makes two measurements comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from stages._io import digest
from stages._params import Params


@dataclass(frozen=True)
class DecodeSpec:
    """How an answer is drawn. Two numbers may be compared only if their `digest` is equal.

    `max_tokens` counts generated tokens; an answer that reaches it has finish reason `length`.
    """

    temperature: float
    top_p: float
    max_tokens: int

    @property
    def digest(self) -> str:
        return digest(asdict(self))


@dataclass(frozen=True)
class Request:
    """One answer to draw. `seed` and the ids key its noise; `prompt_ids` hold exactly one BOS."""

    problem_id: str
    sample_index: int
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Response:
    """One answer. `token_ids` are the generated ids, with the end token if one was drawn; their number is the length."""

    problem_id: str
    sample_index: int
    seed: int
    token_ids: tuple[int, ...]
    finish_reason: str  # "stop" | "length"

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


class Engine(Protocol):
    """Draws answers. Use it as a context manager: workers end with it."""

    name: str

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """Yield each answer as it finishes, in any order; the answer depends on the request, `spec` and `seed` only
        (up to the rounding that batch composition causes)."""
        ...

    def load(self, model_path: Path) -> None:
        """Answer with the weights in the folder `model_path` from now on (same architecture and tokenizer)."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...


def answer_seed(seed: int, problem_id: str, sample_index: int) -> int:
    """Seed of one answer's noise: 63 bits of SHA-256 over (seed, problem, sample), so neighbours share nothing."""
    text = f"{seed}/{problem_id}/{sample_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def decode_spec(params: Params) -> DecodeSpec:
    return DecodeSpec(params.decode.temperature, params.decode.top_p, params.decode.max_tokens)


def open_engine(params: Params, model_path: Path) -> Engine:
    """The engine that `params.engine` names, on the model folder `model_path`."""
    from stages.engines.hf import HfEngine

    return HfEngine(model_path, params.model.dtype, params.container.device, **_sizes(params))


def _sizes(params: Params) -> dict[str, Any]:
    return params.engine.model_dump(exclude={"name"})
