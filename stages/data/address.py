"""One file at an address, for `stages.data.hub`: how large it is, and a download that goes on inside the file after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

TIMEOUT = 30.0  # seconds without a byte


class AddressFile(NamedTuple):
    """`path` is the last part of the address; `size` in bytes."""

    path: str
    size: int


def listing(url: str, name: str) -> dict[str, AddressFile]:
    """httpx.HTTPError where nothing answers; ValueError where the answer does not say how large the file is."""
    import httpx

    answer = httpx.head(url, follow_redirects=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    answer.raise_for_status()
    if "content-length" not in answer.headers:
        raise ValueError("the answer does not say how large the file is")
    return {name: AddressFile(name, int(answer.headers["content-length"]))}


def download(url: str, path: Path) -> None:
    """Into `path`, by way of `path`.part: what is there already is not asked for again where the server can skip it."""
    import httpx

    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, follow_redirects=True, timeout=TIMEOUT, headers=headers) as answer:
        if answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # then all of it is there
            answer.raise_for_status()
            goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
            with part.open("ab" if goes_on else "wb") as stream:
                for chunk in answer.iter_bytes():
                    stream.write(chunk)
    part.replace(path)
