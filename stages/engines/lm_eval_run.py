"""One evaluation through lm-eval: tasks that are loaded, a model folder, an engine. Reads and writes the response store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._params import Params
from stages.data.response_store import ResponseStore
from stages.engines.base import Engine, decode_spec
from stages.engines.rollouts import draw_missing
from stages.engines.shards import Shard

if TYPE_CHECKING:
    from stages.engines.lm_eval_model import EngineLM


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

    model = _model(params, model_path, engine, store, title, starts_engine=starts_engine)
    return evaluate(model, {"tasks": dict(tasks), "groups": {}}, log_samples=True, bootstrap_iters=0)


def draw_tasks(
    params: Params, model_path: Path, tasks: Mapping[str, Any], engine: Engine, store: Path, title: str, shard: Shard
) -> None:
    """Draw the shard's share of the answers that `answer_tasks` will ask for, into `store`."""
    model = _model(params, model_path, engine, store, title)
    instances = []
    for task in tasks.values():
        task.build_all_requests()
        instances += [instance for instance in task.instances for _ in range(instance.repeats)]  # as lm-eval repeats
    wanted = shard.take(model.make_requests(instances))
    with ResponseStore(store) as held:
        draw_missing(engine, wanted, decode_spec(params), params.seed, held, title)


def _model(
    params: Params, model_path: Path, engine: Engine, store: Path, title: str, *, starts_engine: bool = False
) -> EngineLM:
    from stages.engines.lm_eval_model import EngineLM, tokenizer_settings

    settings = tokenizer_settings(model_path) | {"store": store, "title": title, "starts_engine": starts_engine}
    return EngineLM(engine, decode_spec(params), params.seed, **settings)
