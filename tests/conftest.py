"""The one run of the pipeline on the host that several tests compare with, and the seconds of each kind of test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

BLOCKS = (
    "vllm",
    "containers",
    "pipeline",
    "model",
    "dvc",
)  # markers; a test counts in the first that it has, else as unit
SECONDS = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SECONDS] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Fixtures count where they are set up."""
    block = next((name for name in BLOCKS if item.get_closest_marker(name)), "unit")
    item.config.stash[SECONDS][block] += call.duration
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("seconds")
    for block, seconds in config.stash[SECONDS].most_common():
        terminalreporter.write_line(f"{block:12}{seconds:6.0f}")


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
