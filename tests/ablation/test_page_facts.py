"""The facts under the ablation: what an update asks, as the runs were made."""

from __future__ import annotations

import copy

import pytest

from stages._params import check_params, read_yaml
from stages.cli._ablation_page import _asked
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, "all questions, 2 answers each"),
        (512, "all questions, 2 answers each"),
        (32, "32 questions, 2 answers each; the whole set is answered by at most 4 checkpoints"),
    ],
)
def test_what_an_update_asks_of_512_questions(asked: int | None, said: str) -> None:
    document = copy.deepcopy(read_yaml(ROOT / "params.yaml"))
    document["ratio"] |= {"control_questions": asked, "control_samples": 2}
    document["select"]["candidates"] = 4
    assert _asked(check_params(document, "params.yaml"), 512) == said
