"""The pages of docs/ are true: their commands and files exist, and what they quote is what the command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.readme import fill
from stages.__main__ import COMMANDS, main
from stages.cli.compare import command as compare
from stages.evidence.summary import AGGREGATION
from tests.paths import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
READING = ROOT / "docs" / "reading-the-table.md"
COMMAND = re.compile(r"`(tldr [^`]+)`|^(?:    |\$ )?(tldr (?:[^`\n\\]|\\\n)*)$", re.MULTILINE)


def commands(text: str) -> list[str]:
    return [(inline or block).replace("\\\n", " ").partition(" #")[0] for inline, block in COMMAND.findall(text)]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page):
    for said in commands(text_of(page)):
        words = shlex.split(re.sub(r"[\[\]|]", " ", said))[1:]
        assert words[0] in COMMANDS, said
        command = main.get_command(click.Context(main), words[0])
        if isinstance(command, click.Group) and len(words) > 1:
            assert words[1] in command.commands, said
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known, said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text_of(page)):
        assert (page.parent / target).exists(), target


def test_the_commands_of_a_page_are_found():
    assert commands("see `tldr report`\n\n    tldr compare a b \\\n      --json  # why\n\ntldr-like words\n") == [
        "tldr report",
        "tldr compare a b        --json ",
    ]
    assert len(commands(text_of(READING))) >= 6


def test_the_papers_table_is_what_the_command_prints(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(compare, ["docs/paper_table1.csv", "--markdown"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n| R1-Distill") == 20
    assert fill(text_of(READING), "paper", result.stdout.strip()) == text_of(READING)


def test_the_figures_named_below_the_papers_table_stand_in_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = text_of(READING)
    table, _, below = text.partition("<!-- paper -->")[2].partition("<!-- /paper -->")
    about_paper, pair, about_pair = re.split(r"^    tldr (compare .*)$", below, flags=re.MULTILINE)
    printed = {"44.9"}  # by the paper, not by us
    assert set(re.findall(r"\d+\.\d", about_paper)) - printed <= set(re.findall(r"\d+\.\d", table))
    result = CliRunner().invoke(compare, [*shlex.split(pair)[1:], "--markdown"])
    assert result.exit_code == 0, result.output
    figures = re.findall(r"[+-]?\d+\.\d", about_pair)
    assert figures == ["3.1", "-2.0", "20.4"]
    assert "| 73.6 | -2.0 | -3.1 | 16.0 | 20.4 |" in result.stdout


def test_the_page_explains_every_verdict_and_every_way_to_average():
    text = text_of(READING)
    for word in (
        "PASS",
        "FAIL",
        "INCONCLUSIVE",
        "Holm",
        "micro",
        "signed macro",
        "clipped macro",
        "pass@k",
        "AES (1, 3, 5)",
    ):
        assert word in text
    assert "weighs by its number of questions" in AGGREGATION and "weighs by its number of questions" in text
