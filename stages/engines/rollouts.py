"""Draw k answers per problem, resumably: finished answers go to an append-only log and are never drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages._io import AppendLog
from stages.data.problems import Problem
from stages.data.prompts import prompt_ids
from stages.engines.base import DecodeSpec, Engine, Request, Response
from stages.engines.progress import track


def make_requests(tokenizer: Any, problems: Sequence[Problem], num_samples: int) -> list[Request]:
    """`num_samples` requests per problem, in file order."""
    requests = []
    for problem in problems:
        ids = prompt_ids(tokenizer, problem.prompt)
        requests += [Request(problem.id, index, ids) for index in range(num_samples)]
    return requests


def draw(
    engine: Engine, requests: Sequence[Request], spec: DecodeSpec, seed: int, log_path: Path, title: str
) -> list[Response]:
    """All answers in the order of `requests`; those that `log_path` holds are read, the others drawn and appended."""
    with AppendLog(log_path) as log:
        done = {(row["problem_id"], row["sample_index"]): _from_row(row) for row in log.rows}
        left = [r for r in requests if (r.problem_id, r.sample_index) not in done]
        if left:
            for response in track(engine.generate(left, spec, seed), len(left), title):
                log.append(vars(response))
                done[response.problem_id, response.sample_index] = response
    return [done[r.problem_id, r.sample_index] for r in requests]


def _from_row(row: dict[str, Any]) -> Response:
    return Response(**{**row, "token_ids": tuple(row["token_ids"])})
