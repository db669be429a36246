"""`tldr images pull` from a real registry on the loopback (Debian's docker-registry)."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages._params import read_yaml
from tests.containers.conftest import run_tldr
from tests.paths import ROOT

pytestmark = pytest.mark.containers

CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(docker_api: Any, tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of an empty registry."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no docker-registry; install Debian's package of that name")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "registry.yml").write_text(CONFIG.format(folder=tmp_path / "registry", port=port))
    log = (tmp_path / "registry.log").open("wb")
    with subprocess.Popen(
        ["docker-registry", "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log
    ) as server:
        _wait_for(port)
        yield f"localhost:{port}"
        server.terminate()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, "the registry does not answer"
            time.sleep(0.05)


def publish(api: Any, registry: str, inputs: str) -> str:
    """An image of one file that carries the label `inputs`, pushed; its NAME@sha256:DIGEST. No local copy stays."""
    name = f"{registry}/tldr-reweight-cpu"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, text in (("file", inputs), ("Dockerfile", "FROM scratch\nCOPY file /file\n")):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    labels = {"io.tldr.inputs": inputs}
    list(api.build(fileobj=context, custom_context=True, tag=f"{name}:t", labels=labels, rm=True, forcerm=True))
    list(api.push(name, tag="t", stream=True))
    digest = str(api.inspect_image(f"{name}:t")["RepoDigests"][0])
    api.remove_image(f"{name}:t", force=True)
    return digest


def test_a_published_image_is_pulled_by_digest_and_checked(docker_api: Any, registry: str, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "containers", root / "containers", ignore=shutil.ignore_patterns("wheels", "__pycache__"))
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", root)
    with (root / "containers" / "cpu" / "verify.py").open("a") as stream:  # an image of its own, not the developer's
        stream.write(f"# {tmp_path}\n")
    run_tldr(root, "images", "lock", "--digests-only")
    image = read_yaml(root / "containers" / "images.yaml")["images"]["cpu"]
    other = publish(docker_api, registry, "sha256:" + "0" * 64)
    run_tldr(root, "images", "lock", "--digests-only", "--published", f"cpu={other}")
    refused = run_tldr(root, "images", "pull", "cpu", code=2)
    assert "was built from other inputs" in refused.stderr
    assert run_tldr(root, "images", "list", "--json").stdout.count('"not here"') >= 1
    right = publish(docker_api, registry, image["inputs"])
    run_tldr(root, "images", "lock", "--digests-only", "--published", f"cpu={right}")
    run_tldr(root, "images", "pull", "cpu")
    try:
        assert '"ready"' in run_tldr(root, "images", "list", "--json").stdout
        gone = right.replace(right[-64:], "1" * 64)
        run_tldr(root, "images", "lock", "--digests-only", "--published", f"cpu={gone}")
        assert "Could not pull cpu" in run_tldr(root, "images", "pull", "cpu", code=1).stderr
    finally:
        for reference in (image["reference"], right, other):
            docker_api.remove_image(reference, force=True)
