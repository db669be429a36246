"""A model card of the Hugging Face hub: front matter in YAML for its tools, then text for people. Reads and writes nothing.

Every figure comes from the report of `tldr report`, the parameters, and the results of the stages; what is not known is
left out or said to be unknown. Format: https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._params import Params

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

TAGS = ("tldr", "reasoning", "arxiv:2506.02678")


@dataclass(frozen=True)
class Identity:
    """Names on the hub; None where they are not known. `title` stands at the top of the card."""

    model_id: str | None
    base_model: str | None
    license: str | None
    title: str


@dataclass(frozen=True)
class Sources:
    """What a card is written from: the report, the parameters, results/*.json by stem with the training's `provenance`,
    and the stages of dvc.lock; empty where a file is not there."""

    report: Mapping[str, Any]
    params: Params
    results: Mapping[str, Mapping[str, Any]]
    lock: Mapping[str, Mapping[str, Any]]


def model_card(sources: Sources, identity: Identity) -> str:
    """The README.md of a model repository, ending with a newline."""
    from huggingface_hub import ModelCard

    from stages.page.card_text import body

    # Through JSON: the YAML dumper refuses numpy's numbers.
    sources = replace(sources, report=json.loads(json.dumps(sources.report, allow_nan=False)))
    data = _front_matter(sources, identity)
    text = f"---\n{data.to_yaml()}\n---\n\n{body(sources, identity)}"
    assert ModelCard(text).data.to_yaml() == data.to_yaml(), "the front matter does not read back as it was written"
    return text


def _front_matter(sources: Sources, identity: Identity) -> ModelCardData:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        library_name="transformers",
        base_model=identity.base_model,
        license=identity.license,
        tags=list(TAGS),
        pipeline_tag="text-generation",
        model_name=identity.title,
        eval_results=_eval_results(sources),
    )


def _eval_results(sources: Sources) -> list[EvalResult]:
    """The rows of the table, then all questions together if there are several rows."""
    report = sources.report
    sides = report["candidate"]["tasks"]
    found = [result for name, part in report["tasks"].items() for result in _row(sources, name, part, sides[name])]
    return found if len(sides) == 1 else found + _row(sources, None, report, report["candidate"])


def _row(sources: Sources, name: str | None, part: Mapping[str, Any], side: Mapping[str, Any]) -> list[EvalResult]:
    """The figures of one row, of all questions for `name` None; `side` is the compressed model there."""
    from huggingface_hub import EvalResult

    dataset = _dataset(sources, name, side)
    return [
        EvalResult(
            task_type="text-generation",
            metric_type=kind,
            metric_name=title,
            metric_value=value,
            metric_args=arguments or None,
            verified=False,
            **dataset,
        )
        for kind, title, value, arguments in _figures(sources.report, part, side)
    ]


def _figures(
    report: Mapping[str, Any], part: Mapping[str, Any], side: Mapping[str, Any]
) -> list[tuple[str, str, float, dict[str, Any]]]:
    """Type, name, value and arguments. A row's verdict is the one adjusted for the number of rows, as in the table."""
    reduction, difference = part["token_reduction"], part["accuracy_difference"]
    verdict = part.get("verdict_holm", part["verdict"])
    judged = {"margin": report["margin"], "alpha": report["alpha"], "verdict": verdict}

    def within(bounds: list[float] | None) -> dict[str, Any]:
        return {} if bounds is None else {"confidence": report["confidence"], "lower": bounds[0], "upper": bounds[1]}

    return [
        ("accuracy", "Accuracy", side["accuracy"], within(side["accuracy_ci"])),
        ("mean_tokens", "Mean tokens per answer", side["mean_tokens"], within(side["mean_tokens_ci"])),
        (
            "accuracy_difference",
            "Accuracy minus that of the base model",
            difference["value"],
            within(difference["ci"]) | judged,
        ),
        (
            "token_reduction",
            "Share of tokens saved against the base model (micro)",
            reduction["micro"],
            within(reduction["ci"]),
        ),
        ("truncation_rate", "Share of answers that were cut and count as wrong", side["truncation_rate"], {}),
    ]


def _dataset(sources: Sources, name: str | None, side: Mapping[str, Any]) -> dict[str, Any]:
    """The library puts results with the same type and config together, so these tell the rows apart."""
    tasks = [Path(task).stem for task in sources.params.evaluate.tasks]
    shown = name if name is not None else "all questions"
    if len(tasks) == 1:  # the rows are groups of one task
        kind, config, title = tasks[0], shown, tasks[0] if shown == tasks[0] else f"{tasks[0]}, {shown}"
    else:
        kind, config, title = name if name is not None else "+".join(tasks), None, shown
    return {
        "dataset_type": kind,
        "dataset_name": title,
        "dataset_config": config,
        "dataset_split": "test",
        "dataset_args": {"num_questions": side["num_questions"], "num_answers": side["num_samples"]},
    }
