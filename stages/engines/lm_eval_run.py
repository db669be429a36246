"""One evaluation through lm-eval: tasks that are loaded, a model folder, an engine. Reads and writes the response store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages._params import Params
from stages.engines.base import Engine, decode_spec


def answer_tasks(
    params: Params,
    model_path: Path,
    tasks: Mapping[str, Any],
    engine: Engine,
    store: Path,
    title: str,
    *,
    starts_engine: bool = False,
) -> Any:
    """lm-eval's output; `starts_engine` as in `EngineLM`.

    `evaluate`, not `simple_evaluate`: that one ends with a survey of the machine (2 s, git).
    """
    from lm_eval.evaluator import evaluate

    from stages.engines.lm_eval_model import EngineLM, tokenizer_settings

    settings = tokenizer_settings(model_path) | {"store": store, "title": title, "starts_engine": starts_engine}
    model = EngineLM(engine, decode_spec(params), params.seed, **settings)
    return evaluate(model, {"tasks": dict(tasks), "groups": {}}, log_samples=True, bootstrap_iters=0)
