"""`-S key=value` options: checked against params.yaml before DVC starts, then written in the grammar that DVC reads."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any

from stages._errors import UserError
from stages._params import Params, check_params

PLAIN_TEXT = re.compile(r"[A-Za-z_./][\w./@-]*")
BEFORE_QUOTE = re.compile(r"(\\+)(?='|$)")  # the only backslashes that Hydra reads as escapes
KEYWORDS = {"null", "true", "false", "nan", "inf"}


def apply_overrides(document: Any, pairs: Iterable[str]) -> list[str]:
    """Check `pairs` against the contents of params.yaml and return them as values of `dvc exp run -S`.

    UserError for a pair without "=", an unknown key (names the nearest), or a value of the wrong type or range.
    """
    return _apply(document, pairs)[0]


def with_overrides(document: Any, pairs: Iterable[str]) -> Params:
    """The parameters that `pairs` make of `document`; UserError as for `apply_overrides`."""
    return _apply(document, pairs)[1]


def _apply(document: Any, pairs: Iterable[str]) -> tuple[list[str], Params]:
    changed = copy.deepcopy(document)
    overrides = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"-S {pair!r} is not KEY=VALUE; write it like -S ratio.init=0.5.")
        value = _parse(key, text)
        _check_key(changed, key, value)
        _assign(changed, key, value)
        overrides.append(f"params.yaml:{key}={render(value)}")
    return overrides, check_params(changed, "params.yaml with the -S options")


def _check_key(document: Any, key: str, value: Any) -> None:
    """A block can be replaced by a mapping or by null only, such as fetch.model."""
    keys = list(_leaves(document))
    if key in keys:
        return
    inside = [name for name in keys if name.startswith(f"{key}.")]
    if inside and (value is None or isinstance(value, dict)):
        return
    if inside:
        raise UserError(f"-S {key} names a block; give one of its keys: {', '.join(inside)}.")
    import difflib

    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "; its keys are listed there with a comment on each."
    raise UserError(f"-S {key}: params.yaml has no such key{hint}")


def _leaves(value: Any, prefix: str = "") -> Iterator[str]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _leaves(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _parse(key: str, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text) if text else ""
    except YAMLError:
        raise UserError(f"-S {key}={text}: the value is not valid YAML; quote it like -S '{key}=\"text\"'.") from None


def _assign(document: Any, key: str, value: Any) -> None:
    *blocks, last = key.split(".")
    for name in blocks:
        document = document[name]
    document[last] = value


def render(value: Any) -> str:
    """`value` in the override grammar of Hydra (https://hydra.cc/docs/advanced/override_grammar/basic)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(render(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{render(item)}' for name, item in value.items())}}}"
    if isinstance(value, str) and not (PLAIN_TEXT.fullmatch(value) and value.lower() not in KEYWORDS):
        return "'" + BEFORE_QUOTE.sub(r"\1\1", value).replace("'", r"\'") + "'"
    return str(value)
