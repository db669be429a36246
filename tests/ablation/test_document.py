"""The page says what the numbers say: sentences, tables and figure of hand-made results."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from stages.ablation.document import document, facts_of
from stages.ablation.figure import figure
from stages.ablation.tables import Content
from stages.page.canvas import COLOURS
from stages.tiny.policies import Policy
from tests.ablation.toy_runs import PLAN, measured, trained

TUNED = {
    "half": {1: trained(71.0), 2: trained(73.0)},
    "all": {1: trained(60.0, fallback=True), 2: trained(60.0)},
    "slow": {1: trained(72.0), 2: trained(72.0)},
    "fast": {1: trained(69.0), 2: trained(71.0)},
}
HALF = {6: measured(70.0, 0.980), 7: measured(74.0, 0.984), 8: measured(72.0, 0.982)}
TESTED = {
    "half": HALF,
    "all": {
        6: measured(90.0, 0.950, passed=False),
        7: measured(93.9, 0.954, passed=False),
        8: measured(92.1, 0.952, fallback=True),
    },
    "up": {6: measured(69.0, 0.981), 7: measured(75.5, 0.983), 8: measured(72.0, 0.985)},
    "slow": {6: measured(1.0, 0.5)},
    "fast": {6: measured(72.0, 0.979), 7: measured(73.0, 0.985), 8: measured(72.5, 0.981, step=96)},
}
ORACLE = Policy("0 0 0 0 1 1 1 1", 0.991, 66.5, 0.585)
CONTENT = Content(PLAN, TUNED, TESTED, ORACLE, ["Something was run."], 0.95, 0.01)


def section(text, name):
    return text.partition(f"## {name}\n")[2].partition("\n## ")[0]


def table(text):
    """The rows of the one table of `text`, by their first cell, without marks of emphasis."""
    lines = [line.strip("| ").replace("**", "") for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_the_table_compares_with_the_static_arm_that_the_tuning_seeds_chose():
    text = document(CONTENT)
    rows = table(section(text, "Result"))
    assert list(rows) == ["half", "all", "up", "fast", "base model", "oracle, simulated"], "slow is a beaten variant"
    assert "| **half** |" in text, "all has fewer control tokens, but a fallback"
    # of 70, 74 and 72: sd 2, t(.975, 2) = 4.302653, so 4.302653 * 2 / sqrt(3) = 4.97
    assert rows["half"]["tokens"] == "72.0 [67.0, 77.0]"
    assert rows["half"]["fewer tokens, %"] == "55.0 [51.9, 58.1]"
    assert rows["half"]["accuracy - base, points"] == "-0.30 [-0.80, +0.20]"
    assert rows["half"]["tokens - half"] == "—"
    assert rows["all"]["PASS"] == "1/3" and rows["all"]["fallback"] == "1/3"
    assert rows["all"]["tokens - half"].startswith("+20.0 [")
    assert rows["fast"]["step"] == "48 48 96" and rows["fast"]["mean share"] == "0.50"
    assert rows["base model"]["tokens"] == "160.0 [160.0, 160.0]"
    assert rows["oracle, simulated"]["fewer tokens, %"] == "58.5"


def test_the_sentences_say_what_is_shown_and_what_is_not():
    result = section(document(CONTENT), "Result")
    assert "No dynamic arm can be told apart from half, the best static share on the tuning seeds" in result
    assert "No scheduled arm can be told apart from half" in result
    assert "all (other static) differs from half: 20.0 more tokens per answer (shown, p" in result
    assert "No other static arm is shown to use fewer tokens than half." in result
    assert "half, up and fast pass the 1-point margin at every seed; all not at every seed." in result
    assert "all: at 1 of 3 seeds no checkpoint that answered the whole control set was shown to keep" in result
    assert "INCOMPLETE" not in result


def test_a_dynamic_arm_that_is_shorter_at_every_seed_is_said_to_be():
    better = {seed: replace(run, tokens=run.tokens - 6.0 - seed / 100) for seed, run in HALF.items()}
    result = section(document(replace(CONTENT, tested=TESTED | {"fast": better})), "Result")
    assert "fast (dynamic) differs from half: 6.1 fewer tokens per answer (shown, p < 0.001), accuracy 0.00" in result
    assert "No dynamic arm" not in result
    assert "Fewest tokens: fast, 55.0 [" in result


def test_what_is_missing_is_said():
    some = {arm: runs for arm, runs in TESTED.items() if arm != "up"} | {"fast": {6: TESTED["fast"][6]}}
    result = section(document(replace(CONTENT, tested=some)), "Result")
    assert "INCOMPLETE: 0 of 3 reporting seeds of up are there." in result
    assert "INCOMPLETE: 1 of 3 reporting seeds of fast are there." in result
    assert "have no interval and no test" in result
    before = document(replace(CONTENT, tested={}))
    assert "Nothing is reported yet" in before and "ablation.svg" not in before
    untuned = document(replace(CONTENT, tuned={}))
    assert "INCOMPLETE: 0 of 2 tuning seeds of half" in untuned and "nothing to compare with" in untuned


def test_the_tuning_table_ranks_and_says_what_is_reported():
    rows = table(section(document(CONTENT), "Tuning"))
    assert list(rows) == ["fast", "half", "slow", "all"]
    assert [row["reported"] for row in rows.values()] == ["yes", "yes", "no", "yes"]
    assert rows["half"]["control tokens"].startswith("72.0 [") and rows["all"]["fallback"] == "1/2"


def test_every_row_of_a_table_has_its_cells():
    for line in document(CONTENT).splitlines():
        if line.startswith("|"):
            assert line.count("|") in (13, 10), line


def test_stages_that_ran_are_counted_and_seconds_are_those_of_arms():
    records = [
        {"phase": "tune", "arm": "_shared", "seconds": 50.0, "ran": ["sample", "label-by-length"]},
        {"phase": "tune", "arm": "half", "seconds": 100.0, "ran": ["train"]},
        {"phase": "tune", "arm": "up", "seconds": 210.0, "ran": ["train"]},
        {"phase": "report", "arm": "up", "seconds": 999.0, "ran": ["train"]},
    ]
    ran, took = facts_of(records, "tune", 2)
    assert "sample 1, label-by-length 1, train 2" in ran
    assert "2 runs" in took and "(100 to 210)" in took and "0.1 hours" in took
    assert facts_of(records[:3], "report", 2) == []


KINDS = {"half": "static", "all": "static", "up": "scheduled", "fast": "dynamic"}


def drawn(tested_runs=None):
    frontier = [Policy("few", 0.96, 40.0, 0.75), ORACLE, Policy("many", 0.994, 150.0, 0.06)]
    return figure(tested_runs or CONTENT.shown, KINDS, frontier, 0.95)


def test_the_figure_names_every_arm_and_the_base_once_and_is_well_formed():
    svg = drawn()
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]
    for name in ("half", "all", "up", "fast", "base model", "oracle frontier, simulated"):
        assert texts.count(name) == 1, name
    assert not set(COLOURS.values()) & set(re.findall(r"#[0-9a-f]{6}", svg)), "a sentinel colour is left"
    assert "DejaVu Sans', sans-serif" in svg and "Bitstream" not in svg


def test_equal_results_are_drawn_alike_and_a_single_seed_without_bars():
    assert drawn() == drawn()
    alone = {arm: {6: runs[6]} for arm, runs in CONTENT.shown.items()}
    bars = [svg.count("LineCollection") for svg in (drawn(), drawn(alone))]
    assert bars[0] > 0 and bars[1] == 0


@pytest.mark.parametrize("margin", [0.01, 0.02])
def test_the_margin_is_that_of_params(margin):
    said = "less than 1 point of" if margin == 0.01 else "less than 2 points of"
    assert said in document(replace(CONTENT, margin=margin))
