"""The one run of the pipeline on the host that several tests compare with."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def host_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `tldr repro` has run once on the host, after `sample` had been killed in the middle. Not to be
    changed; repro.txt is what it printed."""
    from tests.test_pipeline_run import checkout, killed, tldr

    folder = checkout(tmp_path_factory.mktemp("host"))
    killed(folder, "sample", "system1.jsonl", 10)
    (log,) = (folder / ".tldr" / "work" / "sample").glob("*/system1.jsonl")
    before = log.read_text()[: log.read_text().rfind("\n") + 1]
    tldr(folder, "run", "sample")
    assert log.read_text().startswith(before), "answers that were finished before the kill were drawn again"
    (folder / "repro.txt").write_text(tldr(folder, "repro").stdout)
    return folder
