"""A Hugging Face hub on 127.0.0.1, as far as huggingface_hub asks for it: file listings, HEAD and GET with ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Request(NamedTuple):
    method: str
    path: str
    first_byte: str | None
    token: str | None


class ToyHub:
    """Files by repository path ("org/name" or "datasets/org/name"), the same at both commits."""

    def __init__(self, files: dict[str, dict[str, bytes]]) -> None:
        self.files = files
        self.gated: dict[str, int] = {}  # repository to status without a token
        self.stalls: set[str] = set()  # files of which half is sent, then nothing until `go_on`
        self.breaks: set[str] = set()  # files whose connection ends once after half of them
        self.sent_instead: dict[str, bytes] = {}  # contents that arrive, of the size that was announced
        self.requests: list[Request] = []
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            do_GET = do_HEAD

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def asked_for(self, method: str) -> list[str]:
        """Names of the files that were asked for by `method`, sorted."""
        return sorted(
            request.path.partition(f"/resolve/{COMMIT}/")[2]
            for request in self.requests
            if request.method == method and f"/resolve/{COMMIT}/" in request.path
        )

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        path, _, query = call.path.partition("?")
        bytes_from = (call.headers.get("Range") or "").removeprefix("bytes=").rstrip("-") or None
        token = call.headers.get("Authorization")
        self.requests.append(Request(call.command, path, bytes_from, token))
        api = path.startswith("/api/")
        repo, _, rest = (
            path.removeprefix("/api").removeprefix("/models").strip("/").partition("/tree/" if api else "/resolve/")
        )
        commit, _, name = rest.partition("/")
        if repo not in self.files:
            return send(call, 404, {"X-Error-Code": "RepoNotFound"})
        if api and not rest:
            return send(call, 200, body=json.dumps({"id": repo.removeprefix("datasets/"), "sha": COMMIT}).encode())
        if commit not in (COMMIT, OTHER_COMMIT):
            return send(call, 404, {"X-Error-Code": "RevisionNotFound"})
        if api:
            return send(
                call, 200, body=json.dumps(self.listing(repo, name, recursive="recursive=True" in query)).encode()
            )
        if repo in self.gated and token is None:
            return send(call, self.gated[repo], {"X-Error-Code": "GatedRepo"})
        self.send_file(call, name, self.sent_instead.get(name, self.files[repo][name]), commit, int(bytes_from or 0))

    def listing(self, repo: str, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        inside = f"{folder}/" if folder else ""
        return [
            entry(name, content)
            for name, content in self.files[repo].items()
            if name.startswith(inside) and (recursive or "/" not in name.removeprefix(inside))
        ]

    def send_file(self, call: BaseHTTPRequestHandler, name: str, content: bytes, commit: str, start: int) -> None:
        headers = {"ETag": f'"{etag(name, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part, status = content[start:], 206 if start else 200
        if call.command == "HEAD" or (name not in self.stalls and name not in self.breaks):
            return send(call, status, headers, part)
        send(call, status, headers, part, until=len(part) // 2)
        if name in self.breaks:
            self.breaks.remove(name)
        else:
            self.half_sent.set()
            self.go_on.wait(60)
        call.close_connection = True


def send(
    call: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    until: int | None = None,
) -> None:
    call.send_response(status)
    for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        call.send_header(key, value)
    call.end_headers()
    if call.command == "GET":
        call.wfile.write(body[:until])
        call.wfile.flush()


def is_large(name: str) -> bool:
    """Kept by git-lfs, as the hub keeps weights: known by SHA-256, where git knows the others by their own hash."""
    return name.endswith((".safetensors", ".bin"))


def etag(name: str, content: bytes) -> str:
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(name: str, content: bytes) -> dict[str, Any]:
    found = {"type": "file", "path": name, "size": len(content), "oid": etag(name, content)}
    if is_large(name):
        found |= {"oid": "0" * 40, "lfs": {"oid": etag(name, content), "size": len(content), "pointerSize": 130}}
    return found


@contextmanager
def serving(files: dict[str, dict[str, bytes]]) -> Iterator[ToyHub]:
    hub = ToyHub(files)
    threading.Thread(target=hub.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        hub.server.shutdown()
        hub.server.server_close()
