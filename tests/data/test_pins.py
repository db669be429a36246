"""What is pinned and whether it is there, without a network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from stages._errors import UserError
from stages._params import check_params, read_yaml
from stages.data.pins import Pin, pins, sha256, state, write_record
from tests.paths import ROOT

DOCUMENT = read_yaml(ROOT / "params.yaml")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = {"repo": "org/toy", "revision": COMMIT}
FILE = {**REPO, "file": "rows.jsonl", "sha256": None, "path": "data/rows.jsonl"}
MODEL = Pin("fetch.model", "org/toy", COMMIT, "models/toy", None, None)
ROWS = Pin("fetch.data.0", "org/toy", COMMIT, "data/rows.jsonl", "rows.jsonl", None)


def declared(model_path: str = "models/toy", short_path: str | None = None, **fetch: Any) -> list[Pin]:
    document = copy.deepcopy(DOCUMENT)
    document["model"]["path"] = model_path
    if short_path is not None:
        document["ratio"]["short_bound"].update(source="model", path=short_path)
    document["fetch"] = {"model": None, "short_model": None, "data": None, **fetch}
    return pins(check_params(document, "params.yaml"))


def test_pins_have_the_paths_that_the_stages_read() -> None:
    found = declared(short_path="models/short", model=REPO, short_model=REPO, data=[FILE])
    assert [(pin.key, pin.path, pin.file) for pin in found] == [
        ("fetch.model", "models/toy", None),
        ("fetch.short_model", "models/short", None),
        ("fetch.data.0", "data/rows.jsonl", "rows.jsonl"),
    ]
    assert declared() == []


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"model": {**REPO, "revision": "main"}}, r"fetch\.model\.revision = 'main': .*because a branch or tag moves"),
        ({"model": {**REPO, "revision": COMMIT[:7]}}, "full commit of 40 hex digits"),
        ({"model": {**REPO, "repo": "a/b/c"}}, r"fetch\.model\.repo = 'a/b/c'"),
        ({"model": {**REPO, "branch": "main"}}, r"unknown key fetch\.model\.branch"),
        ({"short_model": REPO}, r"fetch\.short_model needs ratio\.short_bound\.source: model"),
        (
            {"model": REPO, "model_path": "/models/toy"},
            r"yaml: model\.path = '/models/toy' is fetched and must be a rel",
        ),
        ({"data": [{**FILE, "path": "../rows"}]}, r"fetch\.data\.0\.path = '\.\./rows': must be a relative path"),
        ({"data": [{**FILE, "path": ".git/config"}]}, "inside the checkout"),
        ({"data": [{**FILE, "file": "/etc/passwd"}]}, r"fetch\.data\.0\.file"),
        ({"data": [{**FILE, "sha256": "abc"}]}, r"fetch\.data\.0\.sha256 = 'abc'"),
        ({"data": []}, r"fetch\.data = \[\]"),
        ({"data": [FILE, FILE]}, r"fetch\.data\.1 and fetch\.data\.0 would both be written to data/rows\.jsonl"),
        ({"model": REPO, "data": [{**FILE, "path": "models/toy/x"}]}, "would both be written to models/toy"),
    ],
)
def test_bad_pins_are_named(values: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        declared(**values)
    assert "\n" not in str(caught.value)


def fetched(root: Path, pin: Pin, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = pin.place(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    record = {name: {"bytes": len(content), "sha256": sha256(pin.place(root, name))} for name, content in files.items()}
    write_record(root, pin, record)


def test_the_state_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "toy"
    assert state(tmp_path, MODEL) == "missing"
    fetched(tmp_path, MODEL, {"config.json": b"{}", "model.safetensors": b"weights"})
    assert state(tmp_path, MODEL) == "there"
    other = Pin("fetch.model", "org/toy", "f" * 40, "models/toy", None, None)
    assert state(tmp_path, other) == "other revision"
    (folder / "model.safetensors").write_bytes(b"weigh")
    assert state(tmp_path, MODEL) == "short"
    (folder / "model.safetensors").unlink()
    assert state(tmp_path, MODEL) == "short"
    for changed in ("model.safetensors", "added.txt"):
        (folder / changed).write_bytes(b"WEIGHTS")
        for pin in (MODEL, other):
            with pytest.raises(UserError, match=rf"changed after it was fetched \({changed}\); move it away"):
                state(tmp_path, pin)
        (folder / changed).unlink()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert state(tmp_path, MODEL) == "missing"  # the record alone is what a kill before the rename leaves


def test_the_state_of_a_file(tmp_path: Path) -> None:
    fetched(tmp_path, ROWS, {"rows.jsonl": b"rows"})
    assert state(tmp_path, ROWS) == "there"
    digest = sha256(tmp_path / "data" / "rows.jsonl")
    assert state(tmp_path, Pin(**{**vars(ROWS), "sha256": digest})) == "there"
    with pytest.raises(UserError, match=rf"has the SHA-256 {digest}, and fetch\.data\.0\.sha256 pins 0000"):
        state(tmp_path, Pin(**{**vars(ROWS), "sha256": "0" * 64}))
    ROWS.record(tmp_path).unlink()
    assert state(tmp_path, Pin(**{**vars(ROWS), "sha256": digest})) == "there"  # the contents are what is pinned
    with pytest.raises(UserError, match=r"data/rows\.jsonl exists and `tldr fetch` did not make it"):
        state(tmp_path, ROWS)


def test_a_link_out_of_the_checkout_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "models").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of the checkout over a link"):
        state(root, MODEL)
