"""From the names in evaluate.tasks to lm-eval tasks that are ready to be evaluated.

An entry is the name of a task in tasks/, the path of a YAML file (relative to the root of the checkout), or the name of
any task that comes with lm-eval and generates text. Reads tasks/, that file and what the tasks read (data sets of the hub
from the local cache); writes nothing but what `datasets` caches. Written against lm-eval 0.4.13.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stages._errors import UserError
from stages._params import Params
from stages.data.lm_eval_stock import check_stock, stock_settings
from stages.data.lm_eval_tasks import own_settings

SUFFIXES = (".yaml", ".yml")
LOCAL = ("json", "csv", "parquet", "text", "arrow")  # builders of `datasets` that read files of this machine
MAX_MEMBERS = 6  # of a group, in the sentence that refuses it


@dataclass(frozen=True)
class FoundTask:
    """`config` is the YAML with its includes, functions as text; `manager` knows the task, None for one given by path."""

    name: str
    config: dict[str, Any]
    manager: Any
    path: Path | None


def load_tasks(root: Path, params: Params, generation_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The tasks that `evaluate.tasks` names, as lm-eval `Task` objects in that order."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tasks: dict[str, Any] = {}
    for found in find_tasks(root, params.evaluate.tasks):
        if found.name in tasks:
            raise UserError(f"evaluate.tasks names the task {found.name} twice; remove one of them.")
        if _is_built_on_template(root, found.config):
            settings = own_settings(root, params, found.config)
            loaded = _load(found, settings | {"generation_kwargs": dict(generation_kwargs)})
        else:
            check_stock(found.name, found.config)
            settings = stock_settings(found.config, params.evaluate.samples)
            loaded = _load_stock(found, settings | {"generation_kwargs": dict(generation_kwargs)})
            loaded[found.name].set_fewshot_seed(params.seed)
        tasks |= loaded
    return tasks


def task_files(root: Path, names: Sequence[str]) -> list[Path]:
    """The YAML files that `names` give by path."""
    return [root / name for name in names if name.endswith(SUFFIXES)]


def find_tasks(root: Path, names: Sequence[str]) -> list[FoundTask]:
    """Where each name leads; UserError for an unknown one, with names like it."""
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=str(root / "tasks"), include_defaults=False)
    found = []
    for name in names:
        if name.endswith(SUFFIXES):
            found.append(_find_file(root, name))
        elif name in own.task_index:
            found.append(_find_name(name, own))
        else:
            everything = _tasks_of_lm_eval()
            if name not in everything.task_index:
                raise _unknown(name, own.all_tasks, everything.all_tasks)
            found.append(_find_name(name, everything))
    return found


@cache
def _tasks_of_lm_eval() -> Any:
    """Asked for only if tasks/ does not have a name: this index of 14,000 tasks takes 6 s."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=True)


def _find_name(name: str, manager: Any) -> FoundTask:
    entry = manager.task_index[name]
    if entry.kind.name not in ("TASK", "PY_TASK"):
        members = sorted(entry.tags) if entry.kind.name == "TAG" else _members(entry.cfg or {})
        shown = ", ".join(members[:MAX_MEMBERS]) + (" and others" if len(members) > MAX_MEMBERS else "")
        raise UserError(f"{name} is a group of tasks, not a task; name those that you want of {shown}.")
    return FoundTask(name, entry.cfg or {}, manager, None)


def _members(config: dict[str, Any]) -> list[str]:
    members = config.get("task") or []
    return [
        str(member.get("task") or member.get("group")) if isinstance(member, dict) else member for member in members
    ]


def _find_file(root: Path, name: str) -> FoundTask:
    import yaml  # type: ignore[import-untyped]
    from lm_eval.tasks._yaml_loader import load_yaml

    path = root / name
    try:
        config = load_yaml(path, resolve_func=False)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UserError(f"The task file {name} cannot be read ({reason}); correct the path.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"The task file {name} is no YAML of a task ({_one_line(error)}); correct it.") from None
    if not isinstance(config.get("task"), str):
        raise UserError(f"The task file {name} names no task; add `task: NAME` to it.")
    return FoundTask(config["task"], config, None, path)


def _unknown(name: str, own: Sequence[str], known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(name, [*own, *known], n=3, cutoff=0.5)
    hint = f" (did you mean {', '.join(near)}?)" if near else ""
    return UserError(
        f'There is no task "{name}"{hint}; evaluate.tasks takes a task of tasks/ ({", ".join(own) or "none"}), the path of '
        "a YAML file, or a task of lm-eval (`lm-eval ls tasks` lists them)."
    )


def _is_built_on_template(root: Path, config: dict[str, Any]) -> bool:
    """By its scoring function: that one needs the settings of `own_settings`."""
    return bool(config.get("process_results") == str((root / "tasks").resolve() / "scoring.score"))


def _load(found: FoundTask, settings: dict[str, Any]) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    if found.path is not None:
        spec: dict[str, Any] = {**load_yaml(found.path), **settings}
        manager = TaskManager(include_defaults=False)
    else:  # lm-eval takes overrides of a task that it knows by name from a group only
        spec = {"group": "evaluate", "task": [{"task": found.name, **settings}]}
        manager = found.manager
    tasks: dict[str, Any] = manager.load(spec)["tasks"]
    return tasks


def _load_stock(found: FoundTask, settings: dict[str, Any]) -> dict[str, Any]:
    """UserError for what keeps a task of others from being loaded: its data set, a package, or the task itself."""
    name = found.name
    try:
        return _load(found, settings)
    except ImportError as error:
        raise UserError(
            f"Task {name} needs something that is not installed ({_one_line(error)}); install it, or choose another task."
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        if _is_missing_data(found.config, error):
            raise _missing_data(found) from None
        about = f"{type(error).__name__}: {_one_line(error)}"
        raise UserError(f"Task {name} cannot be loaded ({about}); correct its YAML, or choose another task.") from None


def _is_missing_data(config: dict[str, Any], error: Exception) -> bool:
    """Whether `datasets` has not got a data set of the hub; offline it raises an OSError, or a ValueError for one of
    which only another configuration is there."""
    of_hub = config.get("dataset_path") not in (None, *LOCAL)
    return of_hub and (isinstance(error, OSError) or "find cache" in str(error))


def _missing_data(found: FoundTask) -> UserError:
    names = [found.config[key] for key in ("dataset_path", "dataset_name") if found.config.get(key)]
    call = f"load_dataset({', '.join(map(repr, names))})"
    return UserError(
        f"The data set {' '.join(names)} of task {found.name} is not in the local cache, and evaluations run offline; "
        f'download it once with `python -c "from datasets import load_dataset; {call}"` and run again.'
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
