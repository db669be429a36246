"""What people see: every figure at 80 columns and at 140, in colour and without, and as Markdown."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from rich.console import Console

from stages.evidence.estimates import question_tables
from stages.evidence.flat import csv_text
from stages.evidence.questions import QuestionRow
from stages.evidence.report import headline, markdown, notes, render
from stages.evidence.summary import compare


def answers(tokens: int, losses: int = 0, *, task: str = "tiny", num: int = 400) -> list[QuestionRow]:
    return [
        QuestionRow(task, f"length-{i % 8 + 1}", f"q{i}", 0, i >= losses, tokens + 13 * (i % 9), False, False)
        for i in range(num)
    ]


def a_report(candidate_tokens: int = 60, losses: int = 0, **kinds: Any) -> dict[str, Any]:
    base, new = question_tables(answers(150, **kinds)), question_tables(answers(candidate_tokens, losses, **kinds))
    return compare(base, new, margin=0.01, alpha=0.05, confidence=0.95, resamples=200, seed=1)


def printed(report: dict[str, Any], width: int, **options: Any) -> str:
    stream = io.StringIO()
    render(report, console=Console(width=width, file=stream, **options))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_every_cell_is_there_and_no_line_is_too_wide(width: int) -> None:
    report = a_report(losses=4)
    text = printed(report, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for name in (*(f"length-{i}" for i in range(1, 9)), "overall", "INCONCLUSIVE", "100.00 ± 0.00", "99.00 ± 0.50"):
        assert name in text
    difference = report["accuracy_difference"]
    low, high = (100 * bound for bound in difference["ci"])
    assert f"-1.00 [{low:+.2f}, {high:+.2f}]" in text
    assert f"{100 * report['token_reduction']['micro']:.1f} [" in text


def test_one_table_when_wide_two_when_narrow() -> None:
    report = a_report()
    assert printed(report, 140).count("overall") == 1
    assert printed(report, 80).count("overall") == 2


def test_large_counts_fit_80_columns() -> None:
    report = a_report(30000)
    text = printed(report, 80)
    assert "30,052" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "% more tokens" in text


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[[\d;]*3[0-7]m")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour.search(printed(a_report(), 80, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(printed(a_report(), 80, force_terminal=True, color_system="standard"))
    assert "\x1b" not in printed(a_report(), 80)


def test_model_serve_command_and_fallback_are_shown() -> None:
    report = a_report()
    assert not any("fallback" in note for note in notes(report))
    command = "vllm serve artifacts/model " + "--with-a-long-option 1 " * 5
    report["model"] = {"path": "artifacts/model", "serve_command": command, "selection_fallback": 1}
    for text in (printed(report, 80), markdown(report)):
        assert "selection fallback" in text.replace("\n", " ")
        assert command in text  # unbroken, so that it can be copied
        assert "artifacts/model" in text


def test_headline_and_verdict_note_agree_with_the_verdict() -> None:
    for losses, verdict in ((0, "PASS"), (5, "INCONCLUSIVE"), (40, "FAIL")):
        report = a_report(losses=losses)
        assert report["verdict"] == verdict
        assert headline(report).startswith(f"{verdict}: ")
        assert any(note.startswith(f"{verdict}: ") for note in notes(report))


def test_markdown_is_one_well_formed_table() -> None:
    lines = [line for line in markdown(a_report(task="a|b")).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8 + 1
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_undefined_figures_say_so() -> None:
    report = a_report(num=1)
    text = printed(report, 80)
    assert "± n/a" in text
    assert "[n/a]" in text
    assert text.count("length-1") == 2  # one row: an overall line would repeat it
    assert "1 question," in text
    assert "nan" not in text + markdown(report)


def test_task_names_are_text_not_markup() -> None:
    base = [QuestionRow(name, "", "q", 0, True, 9, False, False) for name in ("[red]math[/red]", "b")]
    report = compare(
        question_tables(base), question_tables(base), margin=0.01, alpha=0.05, confidence=0.95, resamples=100, seed=1
    )
    assert "[red]math[/red]" in printed(report, 140)


@pytest.mark.parametrize("width", [80, 140, 200])
def test_details_show_every_figure(width: int) -> None:
    stream = io.StringIO()
    report = a_report(losses=4)
    render(report, console=Console(width=width, file=stream), details=True)
    text = " ".join(stream.getvalue().split())
    assert max(len(line) for line in stream.getvalue().splitlines()) <= width
    assert "…" not in text
    sides, reduction = (report["baseline"], report["candidate"]), report["token_reduction"]
    for side in sides:
        for key in ("p50_tokens", "p99_tokens", "tokens_per_correct", "tokens_given_correct"):
            assert f"{side[key]:,.1f}" in text
    for key in ("micro", "macro", "clipped_macro", "median", "both_correct"):
        assert f"{100 * reduction[key]:.1f}" in text
    assert f"AES (1, 3, 5): {report['aes']['value']:.3f}" in text
    assert "A.C.R." in text


def test_markdown_details_are_four_well_formed_tables() -> None:
    tables = [part for part in markdown(a_report(), details=True).split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_csv_holds_every_figure_at_full_precision() -> None:
    report = a_report(losses=4)
    rows = list(csv.DictReader(io.StringIO(csv_text(report))))
    assert [row["row"] for row in rows] == [*report["tasks"], "overall"]
    whole = rows[-1]
    assert float(whole["token_reduction_micro"]) == report["token_reduction"]["micro"]
    assert [float(whole[f"token_reduction_ci_{end}"]) for end in ("lower", "upper")] == report["token_reduction"]["ci"]
    assert float(whole["candidate_accuracy"]) == report["candidate"]["accuracy"]
    assert rows[0]["verdict_holm"] == "INCONCLUSIVE"
    assert rows[0]["candidate_tokens_given_wrong"] != ""


def test_mismatch_and_words_are_warned_of() -> None:
    report = a_report() | {"length_unit": "words", "mismatches": ["the token limit is 1 and 2"]}
    text = " ".join(notes(report))
    assert "WARNING: compared in spite of a mismatch: the token limit is 1 and 2." in text
    assert "whitespace-separated words" in text
    assert "fewer words" in headline(report)
    assert "tokens" not in " ".join(markdown(report).split("|"))
