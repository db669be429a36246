"""Draw k answers per problem, resumably: finished answers go to an append-only file and are never drawn again.

Answers stay on disk: memory grows by an index entry per answer, whatever its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.data.problems import Problem
from stages.data.prompts import prompt_ids
from stages.data.response_store import ResponseStore
from stages.engines.base import DecodeSpec, Engine, Request, Response
from stages.engines.progress import track


def make_requests(
    tokenizer: Any, problems: Sequence[Problem], num_samples: int, first_sample: int = 0
) -> list[Request]:
    """`num_samples` requests per problem, in file order; their sample indices begin with `first_sample`."""
    requests = []
    for problem in problems:
        ids = prompt_ids(tokenizer, problem.prompt)
        requests += [Request(problem.id, index, ids) for index in range(first_sample, first_sample + num_samples)]
    return requests


class Drawn:
    """All answers in the order of their requests, read from the store one at a time; can be gone through repeatedly."""

    def __init__(self, path: Path, requests: Sequence[Request]) -> None:
        self._path, self._requests = path, requests

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Response]:
        with ResponseStore(self._path) as store:
            for request in self._requests:
                yield store.read(request)


def is_drawn(requests: Sequence[Request], log_path: Path) -> bool:
    """Whether `log_path` holds an answer to every one of `requests`."""
    with ResponseStore(log_path) as store:
        return all(request in store for request in requests)


def draw(engine: Engine, requests: Sequence[Request], spec: DecodeSpec, seed: int, log_path: Path, title: str) -> Drawn:
    """Draw what `log_path` does not hold yet and append it there, answer by answer as they end."""
    with ResponseStore(log_path) as store:
        draw_missing(engine, requests, spec, seed, store, title)
    return Drawn(log_path, requests)


def draw_missing(
    engine: Engine, requests: Sequence[Request], spec: DecodeSpec, seed: int, store: ResponseStore, title: str
) -> None:
    """Answers to those of `requests` that `store` does not hold, added to it as they end."""
    left = {(r.problem_id, r.sample_index): r for r in requests if r not in store}
    if left:
        for response in track(engine.generate(list(left.values()), spec, seed), len(left), title):
            store.add(left[response.problem_id, response.sample_index], response)
