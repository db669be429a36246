"""Progress of generation: what is shown, and that a lost standard error costs no answer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stages.engines.base import Response
from stages.engines.progress import track
from tests.paths import ROOT

ANSWERS = [Response(str(i), 0, 1, (5,) * 10, "stop") for i in range(3)]
SHOWN = """
import sys
from stages.engines.base import Response
from stages.engines.progress import track
answers = [Response(str(i), 0, 1, (5,) * 10, "stop") for i in range(3)]
print(len(list(track(answers, 3, "drawn"))))
"""


def test_the_last_line_counts_all(capsys):
    assert list(track(ANSWERS, 3, "drawn")) == ANSWERS
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("drawn: 3/3 answers, ") and printed.err.endswith("0 s left\n")


@pytest.mark.parametrize("environment", [{}, {"TTY_COMPATIBLE": "1", "TERM": "xterm"}], ids=["lines", "bar"])
def test_a_reader_that_is_gone_costs_no_answer(environment):
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    shown = subprocess.run(
        [sys.executable, "-c", SHOWN],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=reader.stdin,
    )
    assert (shown.returncode, shown.stdout) == (0, b"3\n")


def test_no_standard_error_at_all(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    assert list(track(ANSWERS, 3, "drawn")) == ANSWERS
    assert capsys.readouterr().out == ""
