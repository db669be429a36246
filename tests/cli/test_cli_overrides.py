"""`-S key=value`: what is refused before DVC starts, and what DVC is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages._errors import UserError
from stages._params import read_yaml
from stages.cli._overrides import apply_overrides, render

DOCUMENT = read_yaml(Path(__file__).parents[2] / "params.yaml")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("ratio.init=0.25", "params.yaml:ratio.init=0.25"),
        ("ratio.init=1", "params.yaml:ratio.init=1"),
        ("train.lr=0.00002", "params.yaml:train.lr=2e-05"),
        ("train.lr=2e-5", "params.yaml:train.lr=2e-05"),
        ("model.path=models/my-model_1.5b", "params.yaml:model.path=models/my-model_1.5b"),
        ("model.path=my model/x", "params.yaml:model.path='my model/x'"),
        ('model.path="a=b"', "params.yaml:model.path='a=b'"),
        ("evaluate.tasks=[tiny]", "params.yaml:evaluate.tasks=[tiny]"),
        ("ratio.short_bound.path=null", "params.yaml:ratio.short_bound.path=null"),
        (
            f"fetch.model={{repo: a/b, revision: {'a' * 40}}}",
            f"params.yaml:fetch.model={{repo:a/b,revision:{'a' * 40}}}",
        ),
        ("fetch.data=null", "params.yaml:fetch.data=null"),
    ],
)
def test_values_keep_their_type(pair: str, expected: str) -> None:
    assert apply_overrides(DOCUMENT, [pair]) == [expected]


NESTED = {"repo": "a/b-c.d", "revision": "12e4", "sha256": None, "more": {"list": [1, {"a": "it's"}], "empty": {}}}
VALUES = [
    NESTED,
    True,
    False,
    None,
    3,
    -2,
    2e-05,
    0.5,
    "a",
    "a b",
    "it's",
    "null",
    "1",
    "",
    "a,b",
    "x\\y",
    "x\\",
    "\\'",
]


@pytest.mark.parametrize("value", VALUES)
def test_dvc_reads_back_what_is_rendered(value: Any) -> None:
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    assert parser.parse_override(f"a.b={render(value)}").value() == value
    assert parser.parse_override(f"a.b={render([value, value])}").value() == [value, value]


def test_several_values_are_checked_together() -> None:
    pairs = ["train.max_steps=20", "train.update_every=10"]
    assert len(apply_overrides(DOCUMENT, pairs)) == 2
    with pytest.raises(UserError, match="max_steps 20 must be a multiple of update_every 16"):
        apply_overrides(DOCUMENT, pairs[:1])


def test_a_block_is_set_whole_and_its_keys_after_it() -> None:
    repo = f"{{repo: a/b, revision: {'a' * 40}}}"
    assert len(apply_overrides(DOCUMENT, [f"fetch.model={repo}", "fetch.model.repo=c/d", "fetch.model=null"])) == 3
    for pair, part in (
        ("fetch.model={repo: a/b}", "key fetch.model.revision is missing"),
        ("engine=null", "engine = None"),
    ):
        with pytest.raises(UserError, match=part):
            apply_overrides(DOCUMENT, [pair])


@pytest.mark.parametrize(
    ("pair", "part"),
    [
        ("ratio.init", "is not KEY=VALUE"),
        ("=1", "is not KEY=VALUE"),
        ("ratio.inti=0.5", "no such key; did you mean ratio.init?"),
        ("zzz=1", "its keys are listed there"),
        ("ratio=0.5", "names a block; give one of its keys: ratio.init, "),
        ("ratio.init=lots", "ratio.init = 'lots'"),
        ("ratio.init=1.5", "ratio.init = 1.5"),
        ("ratio.init=", "ratio.init = ''"),
        ("train.batch_size=true", "train.batch_size = True"),
        ("train.max_steps=160.0", "train.max_steps = 160.0"),
        ("evaluate.tasks=[", "not valid YAML"),
        ("ratio.controller=magic", "ratio.controller = 'magic'"),
    ],
)
def test_bad_pairs_are_refused_with_the_next_step(pair: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_overrides(DOCUMENT, [pair])
    assert part in str(caught.value)


def test_the_document_is_not_changed() -> None:
    apply_overrides(DOCUMENT, ["seed=7"])
    assert DOCUMENT["seed"] == 1
