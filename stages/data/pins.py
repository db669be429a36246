"""What params.yaml and data/sources.yaml pin on the Hugging Face hub and elsewhere, and what of it is in the checkout. Never
uses the network.

Reads the fetch block of params.yaml, data/sources.yaml and what was fetched; reads and writes .tldr/fetch/<digest of a
path>/record.json: {path, repo, revision, file, files: {name: {bytes, sha256}}}. It lies outside the model folder because
stages and DVC hash all files of that folder. Used by `tldr fetch`, by no stage.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from stages._errors import UserError
from stages._io import digest, read_json, write_json
from stages._param_blocks import HubFile, HubRepo
from stages._params import Params

State = Literal["there", "missing", "short", "other revision"]
FOLDER = Path(".tldr") / "fetch"
SOURCES = "data/sources.yaml"


@dataclass(frozen=True)
class Pin:
    """A model (`file` None: `path` is its folder) or one file of a dataset repository, at a commit; or one at an address.

    `key` is where it stands in `declared_in`, such as fetch.data.0. With a `url` the `repo` is its address too. `revision` None
    is not pinned yet.
    """

    key: str
    repo: str
    revision: str | None
    path: str
    file: str | None
    sha256: str | None
    declared_in: str = "params.yaml"
    url: str | None = None

    @property
    def name(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision[:8]}"

    @property
    def leave_out(self) -> str:
        """How to do without it, as the end of a sentence."""
        if self.declared_in == "params.yaml":
            return f"remove {self.key} from params.yaml"
        return f"give {self.key} another path in {self.declared_in}"

    def place(self, root: Path, name: str) -> Path:
        """Where the file that the hub calls `name` lies in the checkout."""
        return root / self.path / name if self.file is None else root / self.path

    def record(self, root: Path) -> Path:
        return root / FOLDER / digest(self.path) / "record.json"

    def partial(self, root: Path) -> Path:
        """Where it is downloaded to; a later call goes on with what is there."""
        return self.record(root).with_name(digest([self.repo, self.revision, self.file]))


def pins(params: Params) -> list[Pin]:
    """All that the fetch block declares; UserError if two of them would lie at the same path or in each other."""
    fetch, short = params.fetch, params.ratio.short_bound
    declared: list[tuple[str, HubRepo, str]] = []
    if fetch.model is not None:
        declared.append(("fetch.model", fetch.model, params.model.path))
    if fetch.short_model is not None:
        assert short.path is not None, "checked on load"
        declared.append(("fetch.short_model", fetch.short_model, short.path))
    declared += [(f"fetch.data.{index}", item, item.path) for index, item in enumerate(fetch.data or ())]
    found = [_pin(*item) for item in declared]
    for index, pin in enumerate(found):
        for other in found[:index]:
            mine, its = PurePosixPath(pin.path), PurePosixPath(other.path)
            if mine.is_relative_to(its) or its.is_relative_to(mine):
                raise UserError(
                    f"params.yaml: {pin.key} and {other.key} would both be written to {its}; give them different paths."
                )
    return found


def source_pins(root: Path, params: Params) -> list[Pin]:
    """The files of data/sources.yaml that params.yaml makes use of; none where there is no such file."""
    if not (root / SOURCES).is_file():
        return []
    from stages.data.sources import read_sources, wanted_files

    sources = read_sources(root)
    found = []
    for name in wanted_files(root, sources, params):
        file = sources.files[name]
        key = f"files.{name}"
        if file.hub is not None:
            hub = file.hub
            found.append(Pin(key, hub.repo, hub.revision, file.path, hub.file, file.sha256, SOURCES))
        elif file.url is not None:
            inner = PurePosixPath(urlsplit(file.url).path).name
            found.append(Pin(key, file.url, None, file.path, inner, file.sha256, SOURCES, file.url))
    return found


def _pin(key: str, item: HubRepo, path: str) -> Pin:
    file, pinned = (item.file, item.sha256) if isinstance(item, HubFile) else (None, None)
    return Pin(key, item.repo, item.revision, path, file, pinned)


def state(root: Path, pin: Pin) -> State:
    """Whether what is pinned is in the checkout: every file is hashed.

    "short" is a fetched path that lacks files or ends of files. UserError for what must not be overwritten: a path that
    was not fetched, or was changed afterwards.
    """
    place = root / pin.path
    if not place.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{pin.path} leads out of the checkout over a link; give {pin.key} a path that stays inside.")
    if not place.exists():
        return "missing"
    files = read_record(root, pin).get("files")
    if files is None:
        if pin.sha256 is not None and place.is_file() and sha256(place) == pin.sha256:
            return "there"
        raise UserError(
            f"{pin.path} exists and `tldr fetch` did not make it; move it away and run again, or leave it and {pin.leave_out}."
        )
    short, changed = _compare(root, pin, files)
    if changed:
        raise UserError(
            f"{pin.path} was changed after it was fetched ({', '.join(changed)}); move it away and run again, or leave "
            f"it and {pin.leave_out}."
        )
    return _state(pin, read_record(root, pin), short)


def _state(pin: Pin, record: dict[str, Any], short: list[str]) -> State:
    if (record["repo"], record["revision"], record["file"]) != (pin.repo, pin.revision, pin.file):
        return "other revision"
    if short:
        return "short"
    if pin.file is not None:
        check_pinned_digest(pin, record["files"][pin.file]["sha256"])
    return "there"


def _compare(root: Path, pin: Pin, files: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names of files that are missing or short, and of those that are there with other contents or were not fetched."""
    short, changed = [], []
    for name, recorded in files.items():
        path = pin.place(root, name)
        size = path.stat().st_size if path.is_file() else -1
        if size < recorded["bytes"]:
            short.append(name)
        elif size > recorded["bytes"] or sha256(path) != recorded["sha256"]:
            changed.append(name)
    folder = root / pin.path
    if folder.is_dir():
        inside = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
        changed += sorted(inside - set(files))
    return short, changed


def check_pinned_digest(pin: Pin, found: str) -> None:
    if pin.sha256 is not None and found != pin.sha256:
        raise UserError(
            f"{pin.file} of {pin.name} has the SHA-256 {found}, and {pin.key}.sha256 pins {pin.sha256}; find out which "
            f"is right before you correct {pin.declared_in}."
        )


def sha256(path: Path) -> str:
    """All 64 hex digits, as the hub and `sha256sum` write them."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_record(root: Path, pin: Pin) -> dict[str, Any]:
    """The record of what was fetched to the path of `pin`; empty if there is none."""
    path = pin.record(root)
    return dict(read_json(path, "tldr fetch")) if path.exists() else {}


def write_record(root: Path, pin: Pin, files: dict[str, dict[str, Any]]) -> None:
    write_json(
        pin.record(root),
        {"path": pin.path, "repo": pin.repo, "revision": pin.revision, "file": pin.file, "files": files},
    )
