"""The transformers engine: worker processes with one model each, or the calling process where one is enough."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages.data.model_folder import check_model
from stages.engines.base import DecodeSpec, Request, Response

POLL_SECONDS = 0.5  # how soon a worker notices that its parent was killed, and the parent that a worker was


class HfEngine:
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
        self._settings = (dtype, device, threads, evict_every)
        self._batch_size = batch_size
        self._model_path = model_path
        self._workers: list[Any] = []
        self._tasks: list[Any] = []
        self._num_processes = processes
        self._results: Any = None

    def __enter__(self) -> HfEngine:
        context = multiprocessing.get_context("spawn")
        self._results = context.Queue()
        for _ in range(self._num_processes):
            tasks = context.Queue()
            arguments = (str(self._model_path), *self._settings, tasks, self._results)
            worker = context.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            self._tasks.append(tasks)
            self._workers.append(worker)
        return self

    def __exit__(self, *error: object) -> None:
        for tasks in self._tasks:
            tasks.put(None)
        for worker in self._workers:
            worker.join(timeout=0.0 if error and error[0] else 10.0)
            if worker.is_alive():
                worker.terminate()
                worker.join()
        self._workers, self._tasks = [], []

    def load(self, model_path: Path) -> None:
        """Have every worker read the weights in `model_path`; returns at once, the next `generate` uses them."""
        check_model(model_path)
        self._model_path = model_path
        for tasks in self._tasks:
            tasks.put(("load", str(model_path)))

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """See `Engine.generate`. Requests are dealt in order of prompt length, so that the workers end together."""
        from stages.engines.decoding import make_batches

        ordered = [request for batch in make_batches(list(requests), 1) for request in batch]
        for index, tasks in enumerate(self._tasks):
            share = ordered[index :: len(self._tasks)]
            tasks.put(("generate", make_batches(share, self._batch_size), spec, seed))
        running = len(self._tasks)
        while running:
            kind, value = self._next_result()
            if kind == "response":
                yield value
            elif kind == "failed":
                raise StageFailed(f"An engine process failed: {value}. Correct the cause and run again to go on.")
            else:
                running -= 1

    def _next_result(self) -> tuple[str, Any]:
        while True:
            try:
                result: tuple[str, Any] = self._results.get(timeout=POLL_SECONDS)
                return result
            except queue.Empty:
                dead = [w for w in self._workers if not w.is_alive()]
                if dead:
                    raise StageFailed(
                        f"An engine process ended with code {dead[0].exitcode} (killed, or out of memory); lower "
                        "engine.batch_size or engine.processes and run again: finished answers are kept."
                    ) from None


def load_model(model_path: str, dtype: str, device: str) -> Any:
    """A transformers causal language model in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype), local_files_only=True)
    return model.to(device).eval()


def _work(model_path: str, dtype: str, device: str, threads: int, evict_every: int, tasks: Any, results: Any) -> None:
    """Life of one worker: loads the model, serves tasks, ends when told to or when its parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; Ctrl-C reaches the whole process group
    try:
        import torch

        torch.set_num_threads(threads)
        model = load_model(model_path, dtype, device)
        while (task := _next_task(tasks)) is not None:
            if task[0] == "load":
                model = load_model(task[1], dtype, device)
            else:
                _serve(model, task[1], task[2], task[3], evict_every, results)
                results.put(("done", None))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent reports it
        results.put(("failed", f"{type(error).__name__}: {error}"))


def _serve(
    model: Any, batches: list[list[Request]], spec: DecodeSpec, seed: int, evict_every: int, results: Any
) -> None:
    from stages.engines.decoding import decode_batch

    for batch in batches:
        for response in decode_batch(model, batch, spec, seed, evict_every):
            results.put(("response", response))
            if _orphaned():
                os._exit(1)


def _next_task(tasks: Any) -> Any:
    while True:
        try:
            return tasks.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if _orphaned():
                return None


def _orphaned() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and os.getppid() != parent.pid
