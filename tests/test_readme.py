"""README.md is true: its table is the committed result, its commands and files exist."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks.readme import fill, report_block
from stages.__main__ import COMMANDS, main
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^(?:```sh\n(.*?)```|    (tldr .*?)\n\n)", README + "\n\n", re.MULTILINE | re.DOTALL)


def test_the_table_is_the_committed_result():
    assert fill(README, "report", report_block(ROOT)) == README


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name):
    assert f"`tldr {name}" in README


def test_every_tldr_command_in_the_readme_exists():
    used = set(re.findall(r"tldr ((?:ratio|tiny) [a-z]+|[a-z]+)", " ".join(re.findall(r"`(tldr [^`]*)`", README))))
    assert used >= {"repro", "report", "ratio step", "tiny build"}
    for words in used:
        result = CliRunner().invoke(main, [*words.split(), "--help"])
        assert result.exit_code == 0, (words, result.output)


def test_the_worked_ratio_step_runs_as_written():
    command = re.search(r"^    (tldr ratio step .*?--json)$", README, re.MULTILINE | re.DOTALL)
    assert command is not None
    words = command[1].replace("\\\n", " ").split()[1:]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0 and '"system1": 0.9501266997' in result.output


def test_every_make_target_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+) ", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_named_files_exist():
    for path in re.findall(r"`((?:stages|tests|benchmarks|tasks|profiles|models|data|containers)/[\w./-]*)`", README):
        assert (ROOT / path).exists() or path.startswith("data/mine"), path
