"""The transformers engine: worker processes with one model each (`HfEngine`), or a model that is at hand (`LiveEngine`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages.data.model_folder import check_model
from stages.engines.base import DecodeSpec, Request, Response
from stages.engines.workers import PooledEngine, WorkerPool

ADVICE = "lower engine.batch_size or engine.processes"


class HfEngine(PooledEngine):
    """Answers from the model folder `model_path`; requests are dealt to `processes` workers of `threads` threads each."""

    name = "hf"

    def __init__(
        self,
        model_path: Path,
        dtype: str,
        device: str,
        *,
        processes: int,
        threads: int,
        batch_size: int,
        evict_every: int,
    ) -> None:
        check_model(model_path)
        arguments = (str(model_path), dtype, device, threads, batch_size, evict_every)
        super().__init__(model_path, WorkerPool(_TransformersModel, processes, arguments, ADVICE))

    def _deal(self, requests: list[Request], num_shares: int) -> list[list[Request]]:
        """In order of prompt length, in turn, so that the workers end together."""
        from stages.engines.decoding import make_batches

        ordered = [request for batch in make_batches(requests, 1) for request in batch]
        return [ordered[index::num_shares] for index in range(num_shares)]


class LiveEngine:
    """The transformers model that is at hand in this process (in training), as it is at each call."""

    name = "live"

    def __init__(self, model: Any, batch_size: int, evict_every: int) -> None:
        self._model, self._batch_size, self._evict_every = model, batch_size, evict_every

    def __enter__(self) -> LiveEngine:
        return self

    def __exit__(self, *error: object) -> None: ...

    def load(self, model_path: Path) -> None:
        """Nothing is read: the weights in the folder are those of the model, which `weights` lets the caller check."""

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """See `Engine.generate`. The model is in evaluation mode while it answers, and as it was afterwards."""
        from stages.engines.decoding import decode_batch, make_batches

        training = self._model.training
        self._model.eval()
        try:
            for batch in make_batches(list(requests), self._batch_size):
                yield from decode_batch(self._model, batch, spec, seed, self._evict_every)
        finally:
            self._model.train(training)

    def weights(self) -> dict[str, str]:
        """See `Engine.weights`."""
        from stages.engines.weights import model_hashes

        return model_hashes(self._model)


class _TransformersModel:
    """What a worker of `HfEngine` holds."""

    def __init__(
        self, rank: int, model_path: str, dtype: str, device: str, threads: int, batch_size: int, evict_every: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._dtype, self._device = dtype, device
        self._batch_size, self._evict_every = batch_size, evict_every
        self.load(model_path)

    def load(self, model_path: str) -> None:
        self._model = load_model(model_path, self._dtype, self._device)

    def generate(self, requests: list[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        from stages.engines.decoding import decode_batch, make_batches

        for batch in make_batches(requests, self._batch_size):
            yield from decode_batch(self._model, batch, spec, seed, self._evict_every)

    def weights(self) -> dict[str, str]:
        from stages.engines.weights import model_hashes

        return model_hashes(self._model)


def load_model(model_path: str, dtype: str, device: str) -> Any:
    """A transformers causal language model in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype), local_files_only=True)
    return model.to(device).eval()
