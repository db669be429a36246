"""The vLLM engine (0.31.0): one offline vLLM per process, on a GPU or group of GPUs each, or on CPU cores.

`VllmEngine` starts worker processes and deals the problems to them; `ColocatedVllm` runs one vLLM in the calling process and
takes weights from a model in training. What they hold is in `stages.engines.vllm_model`; no files are written.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._param_blocks import EngineParams
from stages.data.model_folder import check_model
from stages.engines.base import DecodeSpec, Request, Response, deal
from stages.engines.workers import PooledEngine, WorkerPool

ADVICE = "lower engine.batch_size, engine.processes or engine.vllm.kv_cache_gb"


class VllmEngine(PooledEngine):
    """Answers from the model folder `model_path`; each of `settings.processes` workers serves a share of the problems."""

    name = "vllm"

    def __init__(
        self, model_path: Path, dtype: str, device: str, settings: EngineParams, max_tokens: int, *, logprobs: bool
    ) -> None:
        from stages.engines.vllm_model import VllmModel

        check_installed()
        check_model(model_path)
        arguments = (str(model_path), dtype, device, settings, max_tokens, logprobs)
        super().__init__(model_path, WorkerPool(VllmModel, settings.processes, arguments, ADVICE))

    def _deal(self, requests: list[Request], num_shares: int) -> list[list[Request]]:
        return deal(requests, num_shares)


class ColocatedVllm:
    """One vLLM in this process, beside a model in training; GPU memory goes back to the trainer while it sleeps.

    `receive` hands weights over without a file. On CPU there is no sleep: vLLM does not support it there.
    """

    name = "vllm"

    def __init__(self, model_path: Path, dtype: str, device: str, settings: EngineParams, max_tokens: int) -> None:
        check_installed()
        check_model(model_path)
        self._arguments = (str(model_path), dtype, device, settings, max_tokens, False)
        self._model: Any = None

    def __enter__(self) -> ColocatedVllm:
        from stages.engines.vllm_model import VllmModel

        self._model = VllmModel(None, *self._arguments)
        return self

    def __exit__(self, *error: object) -> None:
        if self._model is not None:
            self._model.close()
        self._model = None

    def load(self, model_path: Path) -> None:
        """See `Engine.load`."""
        check_model(model_path)
        self._model.load(str(model_path))

    def receive(self, named_tensors: Iterable[tuple[str, Any]]) -> None:
        """Answer with these weights (names and shapes of the checkpoint) from now on."""
        self._model.receive(named_tensors)

    def sleep(self) -> None:
        """Free the GPU memory of weights and KV cache; nothing can be answered until `wake` and `receive`."""
        self._model.sleep()

    def wake(self) -> None:
        """Take the GPU memory again; the weights must be handed over before the next answer."""
        self._model.wake()

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """See `Engine.generate`."""
        responses: Iterator[Response] = self._model.generate(list(requests), spec, seed)
        return responses

    def weights(self) -> dict[str, str]:
        """See `Engine.weights`."""
        hashes: dict[str, str] = self._model.weights()
        return hashes


def check_installed() -> None:
    """UserError if there is no vLLM. Its stub folder in a checkout does not count: `stages.engines.vllm` is another name."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "engine.name is vllm, but vLLM is not installed; run `pip install -e '.[stages,vllm]'` on a machine with an "
            "NVIDIA GPU, use the cuda image, or set engine.name to hf."
        )


def visible_devices(rank: int, group_size: int) -> str:
    """CUDA_VISIBLE_DEVICES of worker `rank` (from 0), out of those that this process may use."""
    first = rank * group_size
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = allowed[first : first + group_size] if allowed else [str(first + index) for index in range(group_size)]
    if len(names) < group_size:
        raise UserError(
            f"engine.processes x engine.vllm.tensor_parallel_size need more GPUs than the {len(allowed)} of "
            "CUDA_VISIBLE_DEVICES; lower one of them."
        )
    return ",".join(names)
