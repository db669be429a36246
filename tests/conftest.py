"""The one run of the pipeline on the host that several tests compare with, and the seconds of each kind of test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

BLOCKS = (
    "vllm",
    "cluster",
    "containers",
    "pipeline",
    "model",
    "dvc",
)  # markers; a test counts in the first that it has, else as unit


class Seconds:
    """Seconds of each kind of test, fixtures counted where they are set up; also those of pytest-xdist's processes."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._counted[str(dict(report.user_properties).get("block", "unit"))] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds")
        for block, seconds in self._counted.most_common():
            terminalreporter.write_line(f"{block:12}{seconds:6.0f}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Seconds())
    settings.register_profile("any-speed", deadline=None)  # a busy machine fails no test
    settings.load_profile("any-speed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        block = next((name for name in BLOCKS if item.get_closest_marker(name)), "unit")
        item.user_properties.append(("block", block))


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
