"""Where the results of a checkout come from: for the page of `tldr report --html`.

Reads params.yaml, the profile, git, dvc.lock, results/{train,base,metrics}.json and artifacts/provenance/*.json; what is not
there is said to be missing. Writes nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages._errors import UserError
from stages._io import file_digest
from stages._params import Params, read_yaml
from stages.cli._project import read_record

if TYPE_CHECKING:
    from stages.page.document import Origins

Record = dict[str, Any]
RESULTS = {"train": "train", "evaluate@base": "base", "evaluate@candidate": "metrics"}
NONE = "none"
ABSENT = object()


def origins(root: Path, params: Params) -> Origins:
    """Facts, stages and differences, in an order that does not change from run to run."""
    from stages.page.document import Origins

    decode = params.decode
    limits = f"temperature {decode.temperature:g}, top-p {decode.top_p:g}, at most {decode.max_tokens:,} tokens"
    facts = [
        ("Git revision", _revision(root)),
        ("Tracked files changed since", _dirty(root)),
        ("dvc.lock", _digest(root / "dvc.lock")),
        ("params.yaml", _digest(root / "params.yaml")),
        ("Seed", str(params.seed)),
        ("Decoding", limits),
        ("Verifier", params.data.verifier),
        ("Tasks", ", ".join(params.evaluate.tasks)),
    ]
    results = {stage: read_record(root / "results" / f"{name}.json") for stage, name in RESULTS.items()}
    records = {path.stem: read_record(path) for path in sorted((root / "artifacts" / "provenance").glob("*.json"))}
    facts += [("Engine", _engines(results)), *_libraries(records)]
    changes = [
        (f"params.yaml against profile {params.profile}", _against_profile(root, params)),
        ("params.yaml against the git revision", _against_revision(root)),
    ]
    found = [(heading, rows) for heading, rows in changes if rows is not None]
    return Origins(facts, _stages(records) if records else _places(results), found)


def _digest(path: Path) -> str:
    return f"sha256 {file_digest(path)}…" if path.is_file() else "not in this checkout"


def _engines(results: Mapping[str, Record]) -> str:
    """What generated, by stage where the stages differ."""
    found = {stage: str(result.get("engine", "not recorded")) for stage, result in results.items()}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{stage}: {engine}" for stage, engine in found.items())


def _libraries(records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Python and library versions; of several sets every one, with its stages."""
    sets: dict[str, list[str]] = {}
    for stage, record in records.items():
        libraries = {"python": record.get("python"), **_mapping(record.get("libraries"))}
        text = ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
        sets.setdefault(text, []).append(stage)
    if not sets:
        return [("Libraries", "artifacts/provenance is not in this checkout; `tldr repro` or `dvc pull` brings it.")]
    if len(sets) == 1:
        return [("Libraries", next(iter(sets)))]
    return [(f"Libraries of {', '.join(stages)}", text) for text, stages in sets.items()]


def _stages(records: Mapping[str, Record]) -> list[dict[str, str]]:
    return [
        {
            "stage": stage,
            "container": str(record.get("container_engine") or NONE),
            "device": str(record.get("device_name") or record.get("device") or NONE),
            "image": _image(record.get("image")),
            "seed": str(record.get("seed")),
            "code": str(record.get("code")),
            "params": str(record.get("params")),
            "weights": str(record.get("weights") or ""),
        }
        for stage, record in records.items()
    ]


def _places(results: Mapping[str, Record]) -> list[dict[str, str]]:
    """On a fresh clone: what the results that git tracks say of the place."""
    return [
        {
            "stage": stage,
            "container": str(result.get("container_engine", NONE)),
            "device": str(result.get("container_device", NONE)),
            "image": str(result.get("container_image") or NONE),
        }
        for stage, result in results.items()
        if result
    ]


def _image(image: Any) -> str:
    found = _mapping(image)
    return f"{found.get('name')}@{found.get('inputs')}, base {found.get('base')}" if found else NONE


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, None if it cannot answer."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None


def _revision(root: Path) -> str:
    return (_git(root, "rev-parse", "HEAD") or "not under git").strip()


def _dirty(root: Path) -> str:
    """Untracked files do not count: the page itself may be one."""
    changed = _git(root, "-c", "core.quotePath=false", "status", "--porcelain", "--untracked-files=no")
    if changed is None:
        return "unknown"
    names = [line[3:] for line in changed.splitlines()]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}" if names else NONE


def _against_profile(root: Path, params: Params) -> list[dict[str, str]] | None:
    from stages.cli.profile import profile_changes

    try:
        changes = profile_changes(root, params.profile)
    except UserError:
        return None
    return [_change(key, then, now) for key, now, then in changes]


def _against_revision(root: Path) -> list[dict[str, str]] | None:
    prefix = _git(root, "rev-parse", "--show-prefix")
    text = None if prefix is None else _git(root, "show", f"HEAD:{prefix.strip()}params.yaml")
    if text is None:
        return None
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        there = dict(_leaves(YAML(typ="safe", pure=True).load(text)))
    except YAMLError:
        return None
    here = dict(_leaves(read_yaml(root / "params.yaml")))
    keys = [*here, *(key for key in there if key not in here)]
    pairs = [(key, there.get(key, ABSENT), here.get(key, ABSENT)) for key in keys]
    return [_change(*pair) for pair in pairs if pair[1] != pair[2]]


def _change(key: str, there: Any, here: Any) -> dict[str, str]:
    return {"key": key, "there": _value(there), "here": _value(here)}


def _value(value: Any) -> str:
    return "no such key" if value is ABSENT else json.dumps(value, ensure_ascii=False)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict) and item:
            yield from _leaves(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item
