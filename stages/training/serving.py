"""Who answers the control set during training, and the proof that the weights that answer are the weights in training.

Three implementations of one interface, named by `train.control_engine`; no files of its own. They answer alike up to the
rounding that batch composition causes: `live` and `colocated` are one process, `reload` has `engine.processes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages._errors import UserError
from stages._param_blocks import EngineParams
from stages._params import Params
from stages.engines.base import Engine, open_engine
from stages.engines.weights import require_same_weights, weights_digest

if TYPE_CHECKING:
    from stages.training.snapshot import Snapshot


class ControlServer(Protocol):
    """Context manager: what is costly to start, starts once, before the trainer takes its memory."""

    def hand_over(self, snapshot: Snapshot) -> Engine:
        """The engine that answers with the weights of `snapshot`."""
        ...

    def rest(self) -> None:
        """Leave the machine to the trainer until the next `hand_over`."""
        ...

    def reader(self) -> Engine | None:
        """The engine, if it can answer from any model folder."""
        ...

    def __enter__(self) -> ControlServer: ...

    def __exit__(self, *error: object) -> None: ...


class ReloadServer:
    """`engine.name` in processes of its own, which read each checkpoint from its folder."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> ReloadServer:
        self._engine.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.__exit__(*error)

    def hand_over(self, snapshot: Snapshot) -> Engine:
        self._engine.load(snapshot.folder)
        return self._engine

    def rest(self) -> None: ...

    def reader(self) -> Engine:
        return self._engine


class LiveServer:
    """The model in training itself, through transformers: no copy, no second process."""

    def __init__(self, settings: EngineParams) -> None:
        self._settings = settings

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *error: object) -> None: ...

    def hand_over(self, snapshot: Snapshot) -> Engine:
        from stages.engines.hf import LiveEngine

        return LiveEngine(snapshot.model, self._settings.batch_size, self._settings.evict_every)

    def rest(self) -> None: ...

    def reader(self) -> None: ...


class ColocatedServer:
    """vLLM in this process: it sleeps while the trainer works and takes the weights from the model, without a file."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> ColocatedServer:
        with undisturbed():
            self._engine.__enter__()
            self._engine.sleep()
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.__exit__(*error)

    def hand_over(self, snapshot: Snapshot) -> Engine:
        self._engine.wake()
        # A tied output layer is handed over under both names: vLLM may hold a copy of its own.
        self._engine.receive(iter(snapshot.weights.items()))
        engine: Engine = self._engine
        return engine

    def rest(self) -> None:
        self._engine.sleep()

    def reader(self) -> None: ...


def open_server(params: Params, model_path: Path) -> ControlServer:
    """The implementation that `train.control_engine` names; UserError if engine.* does not go with it."""
    kind, engine = params.train.control_engine, params.engine
    if kind == "reload":
        return ReloadServer(open_engine(params, model_path))
    if kind == "live":
        return LiveServer(engine)
    if engine.name != "vllm" or engine.vllm.tensor_parallel_size > 1:
        raise UserError(
            "train.control_engine is colocated, which is one vLLM on the trainer's GPU: set engine.name to vllm and "
            "engine.vllm.tensor_parallel_size to 1, or train.control_engine to reload or live."
        )
    from stages.engines.vllm import ColocatedVllm

    device = params.container.device
    return ColocatedServer(ColocatedVllm(model_path, params.model.dtype, device, engine, params.decode.max_tokens))


@contextlib.contextmanager
def proven(server: ControlServer, snapshot: Snapshot) -> Iterator[tuple[Engine, str]]:
    """An engine that holds the weights of `snapshot`, and the digest of these weights.

    Every tensor is read back from what serves and compared with the model in training, not with the file: StageFailed
    before the first answer if one bit differs. Training goes on afterwards as if nothing had been asked.
    """
    with undisturbed():
        engine = server.hand_over(snapshot)
        trained = snapshot.hashes()
        require_same_weights(engine.weights(), trained, f"the model in training at {snapshot.folder.name}")
        yield engine, weights_digest(trained)
        server.rest()  # not after an error: the stage ends then, and an engine that is broken would hide why


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put back what an engine in this process may change and training depends on: random states, threads, data type."""
    import random

    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic)
