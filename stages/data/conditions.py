"""The conditions of a run as a JSON file beside its question table: base.json beside base.csv.

    schema_version, length_unit, model, tokenizer (digests), decode, verifier, engine, seed,
    table                digest of the question table that the file belongs to
    tasks                {name: {version, verifier, prompts (digest), num_questions, samples}}

Reads a model folder; writes that file. No times and no paths: the same run gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages._io import digest, file_digest
from stages._params import Params
from stages.data.lm_eval_output import OWN_FIELDS, document_id
from stages.data.lm_eval_stock import filter_names, first_metric
from stages.data.lm_eval_tasks import is_own
from stages.engines.base import decode_spec
from stages.evidence.comparability import Conditions

SCHEMA_VERSION = 1
VOCABULARY_FILES = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "added_tokens.json")
KINDS = {"model": str, "tokenizer": str, "decode": dict, "verifier": str, "engine": str, "seed": int, "table": str}
STATED = ("model", "tokenizer", "decode", "verifier", "engine", "seed")  # of the same name in `Conditions`


def conditions_document(
    params: Params, model_path: Path, model_digest: str, tasks: Mapping[str, Any], output: Mapping[str, Any]
) -> dict[str, Any]:
    """What the file holds but for the digest of the table; `output` is what lm-eval returned for `tasks`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "length_unit": "tokens",
        "model": model_digest,
        "tokenizer": tokenizer_digest(model_path),
        "decode": asdict(decode_spec(params)),
        "verifier": params.data.verifier,
        "engine": params.engine.name,
        "seed": params.seed,
        "tasks": {
            name: {
                "version": version(output, name),
                "verifier": _verifier(task, params),
                "prompts": prompts_digest(map(sample_prompt, output["samples"][name])),
                "num_questions": len(task.task_docs),
                "samples": params.evaluate.samples,
            }
            for name, task in tasks.items()
        },
    }


def read_document(content: bytes, name: str) -> dict[str, Any]:
    """The checked file; ValueError, as a sentence with its `name`, for anything else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "length_unit" not in document or "tasks" not in document:
        raise ValueError(f"{name} does not hold the conditions of a run, as a file of this name beside a table must")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{name} has schema_version {document.get('schema_version')}; this version reads {SCHEMA_VERSION}"
        )
    for key, kind in KINDS.items():
        if not isinstance(document.get(key), (kind, type(None))):
            raise ValueError(f"{name}, field {key}: {json.dumps(document[key])[:40]} is of the wrong kind")
    if document["length_unit"] not in ("tokens", "words"):
        raise ValueError(f"{name}, field length_unit: neither tokens nor words")
    if not isinstance(document["tasks"], dict) or not all(isinstance(x, dict) for x in document["tasks"].values()):
        raise ValueError(f"{name}, field tasks: not an object with one object per task")
    return document


def conditions_of(document: Mapping[str, Any]) -> Conditions:
    """The conditions that a checked file states."""
    tasks = document["tasks"]
    stated: dict[str, Any] = {key: document.get(key) for key in STATED}
    return Conditions(
        length_unit=document["length_unit"],
        versions=_by_task(tasks, "version"),
        prompts=_by_task(tasks, "prompts"),
        task_verifier=_by_task(tasks, "verifier"),
        **stated,
    )


def _by_task(tasks: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, str]:
    return {name: str(task[key]) for name, task in tasks.items() if task.get(key) is not None}


def version(results: Mapping[str, Any], task: str) -> str | None:
    """Version of a task and its number of worked examples, from lm-eval's results; None if they do not say."""
    found = results.get("versions", {}).get(task)
    shots = results.get("n-shot", {}).get(task)
    return None if found is None else f"{found}" + ("" if shots is None else f", {shots}-shot")


def scorer(metric: str, filter_name: str) -> str:
    """The verifier of a task that lm-eval scores."""
    return f"{metric}, filter {filter_name}"


def _verifier(task: Any, params: Params) -> str:
    if is_own(task):
        return str((task.config.dataset_kwargs or {}).get("verifier", params.data.verifier))
    return scorer(first_metric(task), filter_names(task)[0])


def sample_prompt(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Id and digest of the question of one of lm-eval's samples: the question as the data set gives it."""
    doc = sample["doc"]
    own = doc.keys() >= OWN_FIELDS
    return document_id(doc, sample["doc_id"]), prompt_digest(doc["prompt"], doc["gold"]) if own else sample["doc_hash"]


def prompt_digest(problem: str, gold: str) -> str:
    return digest([problem, gold])


def prompts_digest(prompts: Iterable[tuple[str, str]]) -> str:
    """Digest of a task's questions from (id, digest) of each, in any order and any number of times."""
    return digest(sorted(dict(prompts).items()))


def tokenizer_digest(folder: Path) -> str:
    """Digest of what decides into how many tokens a text falls; equal if the files were only written anew.

    Template, padding and truncation are left out, and so is the spelling of merges, which changed between versions of the
    tokenizers library.
    """
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    named = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    added = {str(token): entry["content"] for token, entry in (named.get("added_tokens_decoder") or {}).items()}
    if not file.is_file():
        files = {name: file_digest(folder / name) for name in VOCABULARY_FILES if (folder / name).is_file()}
        return digest({"files": files, "added": added})
    whole = json.loads(file.read_text(encoding="utf-8"))
    added |= {str(token["id"]): token["content"] for token in whole.get("added_tokens") or []}
    model = whole["model"]
    return digest(
        {
            "type": model.get("type"),
            "vocabulary": model.get("vocab"),
            "merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges") or []],
            "normalizer": whole.get("normalizer"),
            "pre_tokenizer": whole.get("pre_tokenizer"),
            "added": added,
        }
    )
