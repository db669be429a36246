"""The real vLLM on CPU with the shipped reasoner, at the sizes of a test; one engine per number of processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages._params import Params, check_params, read_yaml
from stages.engines.base import Engine, Request, open_engine
from tests.paths import ROOT

MODEL = ROOT / "models" / "tiny"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("vllm") is None:
        skip = pytest.mark.skip(reason="vLLM is not in this environment; run `make test-vllm`")
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(skip)


def vllm_params(processes: int = 1, **blocks: dict[str, Any]) -> Params:
    """params.yaml with engine.name vllm; `blocks` are merged into its blocks."""
    document = read_yaml(ROOT / "params.yaml")
    document["engine"] |= {"name": "vllm", "processes": processes, "threads": 1}
    document["engine"]["vllm"] |= {"kv_cache_gb": 0.25}
    for name, block in blocks.items():
        document[name] |= block
    return check_params(document, "params.yaml")


def requests(num_problems: int, num_samples: int) -> list[Request]:
    from stages.data.problems import read_problems
    from stages.data.prompts import load_tokenizer
    from stages.engines.rollouts import make_requests

    problems = read_problems(ROOT / "data" / "tiny" / "control.jsonl")
    spread = [problems[index * len(problems) // num_problems] for index in range(num_problems)]  # of every length
    return make_requests(load_tokenizer(MODEL), spread, num_samples)


@pytest.fixture(scope="session")
def one() -> Iterator[Engine]:
    """One process, with log-probabilities."""
    with open_engine(vllm_params(), MODEL, logprobs=True) as engine:
        yield engine


@pytest.fixture(scope="session")
def two() -> Iterator[Engine]:
    """Two processes."""
    with open_engine(vllm_params(2), MODEL) as engine:
        yield engine


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(MODEL, tmp_path / "model"))
