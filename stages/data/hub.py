"""Downloads what params.yaml pins from the Hugging Face hub (`tldr fetch`); the stages themselves stay offline.

Reads HF_ENDPOINT and the hub; writes .tldr/fetch/ and, renamed into place when it is whole and checked, the pinned path.
Whatever ends a download, nothing half done is at that path, and finished files are kept for the next call
(huggingface_hub goes on inside a file only while the process lives). Pickled weights and code are never downloaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from stages._errors import StageFailed, UserError
from stages.data import address
from stages.data.hub_errors import AGAIN, sentences
from stages.data.pins import FOLDER, Pin, State, check_pinned_digest, sha256, write_record

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
LINE_SECONDS = 10.0  # where standard error is no terminal, one line of progress this often


def go_online(root: Path, *, inside_container: bool) -> None:
    """Before huggingface_hub is imported: on the network whatever the caller's environment says, and no token but ours."""
    os.environ.update(HF_HUB_OFFLINE="0", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
    for name in TOKEN_VARIABLES:
        os.environ.pop(name, None)
    if inside_container:  # no home folder there
        os.environ["HF_HOME"] = str(root / FOLDER / "home")
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()


@contextlib.contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """UserError if another `tldr fetch` is at work in this checkout."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with (root / FOLDER / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("Another `tldr fetch` is at work in this checkout; wait for it, then run again.") from None
        yield


def newest(pin: Pin, token: str | None) -> str:
    """The commit that the default branch of a dataset repository is at now."""
    from huggingface_hub import HfApi

    with sentences(pin):
        commit = HfApi(token=token or False).dataset_info(pin.repo).sha
        if commit is None:
            raise ValueError("the answer names no commit")
        return commit


def listing(pin: Pin, token: str | None) -> dict[str, Any]:
    """The files to download, by name, as the hub lists them: sizes and content hashes."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    if pin.url is not None:
        assert pin.file is not None
        with sentences(pin):
            return dict(address.listing(pin.url, pin.file))
    parent = None if pin.file is None else str(PurePosixPath(pin.file).parent)
    with sentences(pin):
        tree = HfApi(token=token or False).list_repo_tree(
            pin.repo,
            None if parent == "." else parent,
            revision=pin.revision,
            repo_type="model" if pin.file is None else "dataset",
        )
        files = {item.path: item for item in tree if isinstance(item, RepoFile)}
    if pin.file is not None:
        if pin.file not in files:
            raise UserError(f"{pin.name} has no file {pin.file}; correct {pin.key}.file in {pin.declared_in}.")
        return {pin.file: files[pin.file]}
    files = {name: file for name, file in files.items() if any(fnmatch.fnmatch(name, form) for form in MODEL_FILES)}
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(
            f"{pin.name} holds no *.safetensors file, and pickled weights are not downloaded; choose another commit of "
            f"it, or convert the weights with save_pretrained and remove {pin.key} from params.yaml."
        )
    return files


def fetch(root: Path, pin: Pin, state: State, files: dict[str, Any], token: str | None) -> None:
    """Download `files` and put them at the path of `pin`, whose `state` is not "there"."""
    partial = pin.partial(root)
    partial.mkdir(parents=True, exist_ok=True)
    _check_file_system(root, pin, partial)
    if state == "short":
        _take_back(root, pin, partial)
    _remove_leftovers(partial)
    num_bytes = sum(file.size for file in files.values())
    with sentences(pin), progress_lines(pin.key, partial, num_bytes):
        download(pin, partial, token)
    record = {name: _checked(pin, partial / name, file) for name, file in files.items()}
    if pin.file is not None and pin.sha256 not in (None, record[pin.file]["sha256"]):
        shutil.rmtree(partial)
        check_pinned_digest(pin, record[pin.file]["sha256"])
    shutil.rmtree(partial / ".cache", ignore_errors=pin.url is not None)
    _move_into_place(root, pin, partial, record)


def download(pin: Pin, partial: Path, token: str | None) -> None:
    from huggingface_hub import hf_hub_download, snapshot_download

    if pin.url is not None:
        assert pin.file is not None
        address.download(pin.url, partial / pin.file)
        return
    at: dict[str, Any] = {"revision": pin.revision, "local_dir": partial, "token": token or False}
    if pin.file is None:
        snapshot_download(pin.repo, allow_patterns=MODEL_FILES, ignore_patterns=["*/*"], **at)
    else:
        hf_hub_download(pin.repo, pin.file, repo_type="dataset", **at)


def _check_file_system(root: Path, pin: Pin, partial: Path) -> None:
    parent = (root / pin.path).parent
    parent.mkdir(parents=True, exist_ok=True)
    if parent.stat().st_dev != partial.stat().st_dev:
        raise UserError(
            f"{pin.path} and {FOLDER} lie on different file systems; move one of them, or give {pin.key} another path."
        )


def _remove_leftovers(partial: Path) -> None:
    """Of killed calls: parts of files, which the hub never uses again, and downloads of other commits."""
    for torn in partial.glob(".cache/**/*.incomplete"):
        torn.unlink()
    for other in partial.parent.iterdir():
        if other.is_dir() and other != partial:
            shutil.rmtree(other)


def _take_back(root: Path, pin: Pin, partial: Path) -> None:
    """Files that are left of a former download: the hub keeps those that are whole."""
    place = root / pin.path
    if pin.file is not None:
        place.unlink()
        return
    for path in place.iterdir():
        path.replace(partial / path.name)
    place.rmdir()


def place_copy(root: Path, pin: Pin, copy: Path) -> None:
    """Put a local copy of the pinned file at its path; UserError if it is not the one that is pinned."""
    assert pin.file is not None, "models are not taken from a folder"
    found = sha256(copy)
    check_pinned_digest(pin, found)
    partial = pin.partial(root)
    (partial / pin.file).parent.mkdir(parents=True, exist_ok=True)
    _check_file_system(root, pin, partial)
    shutil.copyfile(copy, partial / pin.file)
    _move_into_place(root, pin, partial, {pin.file: {"bytes": copy.stat().st_size, "sha256": found}})


def _checked(pin: Pin, path: Path, file: Any) -> dict[str, Any]:
    """{bytes, sha256} of a download whose contents are those that the commit names; StageFailed if they are not."""
    found = sha256(path)
    if pin.url is not None:
        whole = found == pin.sha256
    elif file.lfs is not None:
        whole = found == file.lfs.sha256
    else:
        content = path.read_bytes()
        whole = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == file.blob_id  # as git names it
    if not whole:
        path.unlink()
        raise StageFailed(f"{file.path} of {pin.name} arrived damaged; {AGAIN}")
    return {"bytes": path.stat().st_size, "sha256": found}


def _move_into_place(root: Path, pin: Pin, partial: Path, record: dict[str, dict[str, Any]]) -> None:
    """A kill at any point leaves a path that is missing, never one that is not known to be ours."""
    place = root / pin.path
    if place.is_dir():
        shutil.rmtree(place)  # the unchanged download of another commit
    place.unlink(missing_ok=True)
    write_record(root, pin, record)
    if pin.file is None:
        partial.replace(place)
    else:
        (partial / pin.file).replace(place)
        shutil.rmtree(partial)


@contextlib.contextmanager
def progress_lines(title: str, folder: Path, num_bytes: int) -> Iterator[None]:
    """Now and then a line with what has arrived; on a terminal nothing, the hub draws its own bars there."""
    done = threading.Event()

    def say() -> None:
        while not done.wait(LINE_SECONDS):
            print(f"{title}: {_size(folder) / 1e9:.2f} of {num_bytes / 1e9:.2f} GB", file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        threading.Thread(target=say, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed since
            total += path.stat().st_size if path.is_file() else 0
    return total
