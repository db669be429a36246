"""Worker processes that each hold one model: started together, fed through queues, gone when their parent is.

`WorkerPool` is the parent's side, `serve` the life of a worker, `PooledEngine` what the engines `hf` and `vllm` share. Reads
the model folder that it is given; writes nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stages._errors import StageFailed, TldrError, UserError
from stages.data.model_folder import check_model
from stages.engines.base import DecodeSpec, Request, Response
from stages.engines.limits import check_context

POLL_SECONDS = 0.5  # how soon a worker notices that its parent was killed, and the parent that a worker was


class Model(Protocol):
    """What a worker holds."""

    def load(self, model_path: str) -> None: ...

    def generate(self, requests: list[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]: ...

    def weights(self) -> dict[str, str]: ...


Make = Callable[..., Model]
Self = TypeVar("Self", bound="WorkerPool")
SelfEngine = TypeVar("SelfEngine", bound="PooledEngine")


class WorkerPool:
    """Context manager round `num_processes` workers; each calls `make(rank, *arguments)` for its model."""

    def __init__(self, make: Make, num_processes: int, arguments: Sequence[Any], advice: str) -> None:
        self._make, self.num_processes, self._arguments = make, num_processes, tuple(arguments)
        self._advice = advice  # what to lower when a worker was killed
        self._workers: list[Any] = []
        self._tasks: list[Any] = []
        self._results: Any = None

    def __enter__(self: Self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._results = context.Queue()
        # An interrupt in here or right after never reaches __exit__, and the interpreter would wait for the workers.
        # Registered after the queue, so that it runs before multiprocessing's own handler, which does the waiting.
        atexit.register(self._terminate)
        for rank in range(self.num_processes):
            tasks = context.Queue()
            target = (self._make, rank, self._arguments, tasks, self._results)
            # Not daemonic: an engine that spreads one model over several GPUs starts processes of its own.
            worker = context.Process(target=serve, args=target)
            worker.start()
            self._tasks.append(tasks)
            self._workers.append(worker)
        return self

    def __exit__(self, *error: object) -> None:
        for tasks in self._tasks:
            tasks.put(None)
        for worker in self._workers:
            worker.join(timeout=0.0 if error and error[0] else 10.0)
        self._terminate()
        atexit.unregister(self._terminate)
        for tasks in self._tasks:
            tasks.cancel_join_thread()  # a worker that died left it unread
        self._workers, self._tasks = [], []

    def _terminate(self) -> None:
        """End the workers that still run: politely, then not."""
        running = [worker for worker in self._workers if worker.is_alive()]
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.join(timeout=5.0)
            if worker.is_alive():
                worker.kill()
                worker.join()

    def load(self, model_path: Path) -> None:
        """Have every worker read the weights in `model_path`; returns at once, the next task uses them."""
        for tasks in self._tasks:
            tasks.put(("load", str(model_path)))

    def generate(self, shares: Sequence[list[Request]], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """Answers to one share of requests per worker, as they finish."""
        for tasks, share in zip(self._tasks, shares, strict=True):
            tasks.put(("generate", share, spec, seed))
        running = len(self._tasks)
        while running:
            kind, value = self._next_result()
            if kind == "response":
                yield value
            else:
                running -= 1

    def weights(self) -> dict[str, str]:
        """See `Engine.weights`."""
        for tasks in self._tasks:
            tasks.put(("weights",))
        found = [self._next_result()[1] for _ in self._tasks]
        if any(other != found[0] for other in found[1:]):
            raise StageFailed("The engine's processes hold different weights; run the stage again, and report this.")
        return dict(found[0])

    def _next_result(self) -> tuple[str, Any]:
        while True:
            try:
                kind, value = self._results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                dead = [worker for worker in self._workers if not worker.is_alive()]
                if dead:
                    raise StageFailed(
                        f"An engine process ended with code {dead[0].exitcode} (killed, or out of memory); "
                        f"{self._advice} and run again: finished answers are kept."
                    ) from None
                continue
            if kind == "refused":
                raise UserError(value)
            if kind == "failed":
                raise StageFailed(value)
            return kind, value


class PooledEngine:
    """An `Engine` whose models live in worker processes; a subclass names it and deals the requests."""

    name: str

    def __init__(self, model_path: Path, pool: WorkerPool) -> None:
        self._model_path, self._pool = model_path, pool

    def __enter__(self: SelfEngine) -> SelfEngine:
        self._pool.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def load(self, model_path: Path) -> None:
        """See `Engine.load`; returns at once, the next `generate` uses the new weights."""
        check_model(model_path)
        self._pool.load(model_path)

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """See `Engine.generate`. Whatever the number of processes, an answer has the same id, seed and prompt."""
        wanted = list(requests)
        check_context(self._model_path, wanted, spec)
        return self._pool.generate(self._deal(wanted, self._pool.num_processes), spec, seed)

    def _deal(self, requests: list[Request], num_shares: int) -> list[list[Request]]:
        """One list of requests per process."""
        raise AssertionError("a subclass deals")

    def weights(self) -> dict[str, str]:
        """See `Engine.weights`."""
        return self._pool.weights()


def serve(make: Make, rank: int, arguments: tuple[Any, ...], tasks: Any, results: Any) -> None:
    """Life of one worker: makes its model, serves tasks, ends when told to or when its parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; Ctrl-C reaches the whole process group
    try:
        model = make(rank, *arguments)
        while (task := _next_task(tasks)) is not None:
            _do(model, task, results)
    except TldrError as error:
        results.put(("refused" if isinstance(error, UserError) else "failed", str(error)))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent reports it
        about = " ".join(f"{type(error).__name__}: {error}".split())
        results.put(("failed", f"An engine process failed: {about}. Correct the cause and run again to go on."))


def _do(model: Model, task: tuple[Any, ...], results: Any) -> None:
    kind, *arguments = task
    if kind == "load":
        model.load(*arguments)
    elif kind == "weights":
        results.put(("weights", model.weights()))
    else:
        for response in model.generate(*arguments):
            results.put(("response", response))
            if orphaned():
                os._exit(1)
        results.put(("done", None))


def _next_task(tasks: Any) -> Any:
    while True:
        try:
            return tasks.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if orphaned():
                return None


def orphaned() -> bool:
    """Whether the process that started this worker is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and os.getppid() != parent.pid
