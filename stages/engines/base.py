"""The interface every engine serves, and the decode specification that makes two measurements comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from stages._io import digest
from stages._params import Params


@dataclass(frozen=True)
class Repetition:
    """An answer whose last `min_count` stretches of 1 to `max_pattern_size` tokens are equal is cut there."""

    max_pattern_size: int
    min_count: int


@dataclass(frozen=True)
class DecodeSpec:
    """How an answer is drawn. Two numbers may be compared only if their `digest` is equal.

    `max_tokens` counts generated tokens; an answer that reaches it has finish reason `length`, one that is cut because
    it repeats itself has `repetition`.
    """

    temperature: float
    top_p: float
    max_tokens: int
    repetition: Repetition | None = None

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
    """One answer. `token_ids` are the generated ids, with the end token if one was drawn; their number is the length.

    `cumulative_logprob` is the sum of the log-probabilities (nats, before temperature and top-p) of the generated
    tokens, None from an engine that was not asked for it.
    """

    problem_id: str
    sample_index: int
    seed: int
    token_ids: tuple[int, ...]
    finish_reason: str  # "stop" | "length" | "repetition"
    cumulative_logprob: float | None = None

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

    def weights(self) -> dict[str, str]:
        """Hash of every tensor that answers, by its name in the checkpoint, read back from the serving model
        (`stages.engines.weights.tensor_hash`). StageFailed if the workers of the engine do not agree."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...


def answer_seed(seed: int, problem_id: str, sample_index: int) -> int:
    """Seed of one answer's noise: 63 bits of SHA-256 over (seed, problem, sample), so neighbours share nothing."""
    text = f"{seed}/{problem_id}/{sample_index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def deal(requests: list[Request], num_shares: int) -> list[list[Request]]:
    """Requests by share, for processes or jobs: the problems, sorted by id, are dealt in turn; all samples of a problem stay
    together, so that its prompt is computed once (prefix caching)."""
    ids = sorted({request.problem_id for request in requests})
    share = {problem_id: index % num_shares for index, problem_id in enumerate(ids)}
    shares: list[list[Request]] = [[] for _ in range(num_shares)]
    for request in requests:
        shares[share[request.problem_id]].append(request)
    return shares


def decode_spec(params: Params) -> DecodeSpec:
    decode = params.decode
    repetition = None if decode.repetition is None else Repetition(**decode.repetition.model_dump())
    return DecodeSpec(decode.temperature, decode.top_p, decode.max_tokens, repetition)


def open_engine(params: Params, model_path: Path, *, logprobs: bool = False) -> Engine:
    """The engine that `params.engine` names, on the model folder `model_path`; `logprobs` asks for
    `Response.cumulative_logprob`, which the transformers engine does not give."""
    engine, device = params.engine, params.container.device
    if engine.name == "vllm":
        from stages.engines.vllm import VllmEngine

        return VllmEngine(model_path, params.model.dtype, device, engine, params.decode.max_tokens, logprobs=logprobs)
    from stages.engines.hf import HfEngine

    return HfEngine(
        model_path,
        params.model.dtype,
        device,
        processes=engine.processes,
        threads=engine.threads,
        batch_size=engine.batch_size,
        evict_every=engine.evict_every,
    )
