"""Which checkpoints answer the whole control set after training, in which order, and what a stop in between leaves."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stages._errors import StageFailed
from stages._params import Params
from stages.data.prompts import load_tokenizer
from stages.engines.base import Request, Response
from stages.engines.weights import checkpoint_hashes, weights_digest
from stages.training.confirmation import CONFIRMED, confirmed, promising
from stages.training.control import Score
from stages.training.inputs import Inputs, read_inputs
from stages.training.selection import select_checkpoint
from tests.toy_model import save_random_model
from tests.training.toy_stage import changed, prepare, toy_params
from tests.weights import nudged

pytestmark = pytest.mark.model
NORMS = {
    2: "model.norm.weight",
    4: "model.layers.0.input_layernorm.weight",
    6: "model.layers.1.input_layernorm.weight",
}  # of which a number differs, by step
NUM_QUESTIONS = 16
BASE = Score((1.0,) * NUM_QUESTIONS, (100.0,) * NUM_QUESTIONS, 0.0)
SELECT = toy_params(select={"margin": 0.2, "candidates": 2}).select


def row(step: int, tokens: float, accuracy: float = 1.0, error: float = 0.01) -> dict[str, Any]:
    return {"step": step, "mean_tokens": tokens, "accuracy": accuracy, "accuracy_se": error}


def test_shortest_first_but_what_is_shown_to_be_worse_last():
    rows = [
        row(2, 80.0),
        row(4, 60.0),
        row(6, 20.0, accuracy=0.7),
        row(8, 60.0),
        row(10, 30.0, accuracy=0.7, error=0.1),
    ]
    five = SELECT.model_copy(update={"candidates": 5})
    assert promising(BASE, rows, five) == [10, 4, 8, 2, 6]
    assert promising(BASE, rows, SELECT) == [10, 4]


def test_what_was_dropped_is_never_wanted_later():
    """Folders of all but the first so far are removed after every update."""
    chance = random.Random(1)
    for _ in range(200):
        rows = [row(step, chance.choice([10.0, 20.0, 30.0]), chance.choice([1.0, 0.7])) for step in range(1, 9)]
        for length in range(1, 9):
            kept, later = promising(BASE, rows[:length], SELECT), promising(BASE, rows, SELECT)
            assert {step for step in later if step <= length} <= set(kept)


class Engine:
    """Answers as many of the first questions correctly as `num_correct` says by folder; remembers what it was asked."""

    def __init__(self, inputs: Inputs, num_correct: dict[str, int]) -> None:
        self._num_correct, self._tokenizer = num_correct, load_tokenizer(inputs.model_path)
        self._golds = {problem.id: problem.gold for problem in inputs.control.problems}
        self.asked: list[str] = []
        self.folder = inputs.model_path

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None: ...

    def load(self, model_path: Path) -> None:
        self.folder = model_path

    def weights(self) -> dict[str, str]:
        return checkpoint_hashes(self.folder, "float32")

    def generate(self, requests: Iterable[Request], spec: Any, seed: int) -> Iterator[Response]:
        self.asked.append(self.folder.name)
        for place, request in enumerate(requests):
            assert request.sample_index == 0, "the updates have asked for other answers"
            gold = self._golds[request.problem_id] if place < self._num_correct[self.folder.name] else "999"
            ids = self._tokenizer.encode(f"</think> answer {gold} <eos>", add_special_tokens=False)
            yield Response(request.problem_id, request.sample_index, 0, tuple(ids), "stop")


@dataclass
class Case:
    """A run whose three updates are done: the checkpoint of step 4 looks shortest, then that of 6, then that of 2."""

    params: Params
    inputs: Inputs
    work: Path
    rows: list[dict[str, Any]]

    def confirmed(self, engine: Engine | None) -> list[tuple[int, Score]]:
        return confirmed(self.params, self.inputs, self.work, self.rows, engine)

    def engine(self, second: int, fourth: int, sixth: int) -> Engine:
        names = ("step-00002", "step-00004", "step-00006")
        return Engine(self.inputs, dict(zip(names, (second, fourth, sixth), strict=True)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(folder: Path, tmp_path: Path) -> Case:
    params = toy_params(ratio={"control_questions": 8}, select={"margin": 0.3, "candidates": 3})
    prepare(folder, tmp_path, params, NUM_QUESTIONS)
    inputs = replace(read_inputs(tmp_path, params), base=BASE)
    rows = []
    for step, tokens in ((2, 50.0), (4, 30.0), (6, 40.0)):
        path = nudged(folder, tmp_path / "work" / f"step-{step:05d}", NORMS[step])
        rows.append(row(step, tokens) | {"weights": weights_digest(checkpoint_hashes(path, "float32"))})
    return Case(params, inputs, tmp_path / "work", rows)


def test_the_first_that_passes_ends_it(case: Case) -> None:
    engine = case.engine(16, 16, 16)
    ((step, score),) = case.confirmed(engine)
    assert step == 4 and score.question_accuracy == BASE.question_accuracy and score.mean_tokens < 10
    assert engine.asked == ["step-00004"]


def test_one_that_lost_too_much_is_passed_over(case: Case) -> None:
    """Of 16 questions 8 are lost: the next one in line is asked, the last one not."""
    engine = case.engine(16, 8, 16)
    found = case.confirmed(engine)
    assert [(step, score.accuracy) for step, score in found] == [(4, 0.5), (6, 1.0)]
    assert engine.asked == ["step-00004", "step-00006"]
    selection = select_checkpoint(case.inputs.base, found, 0.3, 0.05)
    assert (selection.step, selection.fallback, selection.num_eligible) == (6, False, 1)


def test_if_none_passes_the_most_accurate_of_those_asked_is_left(case: Case) -> None:
    case.params = changed(case.params, select={"candidates": 2})
    engine = case.engine(16, 4, 8)
    found = case.confirmed(engine)
    assert engine.asked == ["step-00004", "step-00006"], "step 2 is beyond select.candidates"
    selection = select_checkpoint(case.inputs.base, found, 0.3, 0.05)
    assert (selection.step, selection.fallback) == (6, True)


def test_what_was_answered_is_not_asked_again(case: Case) -> None:
    """A torn last line is a checkpoint that was not answered."""
    whole = case.confirmed(case.engine(16, 8, 16))
    log = case.work / CONFIRMED
    first, second = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + second[: len(second) // 2])
    engine = case.engine(16, 8, 16)
    assert case.confirmed(engine) == whole and engine.asked == ["step-00006"]
    assert log.read_bytes() == first + second
    assert case.confirmed(None) == whole, "no engine is started"


def test_weights_that_are_not_the_trained_ones_answer_nothing(case: Case, folder: Path) -> None:
    engine = case.engine(16, 16, 16)
    nudged(folder, case.work / "step-00004", "model.embed_tokens.weight")
    with pytest.raises(StageFailed, match="step-00004 does not hold the weights that were trained"):
        case.confirmed(engine)
    shutil.rmtree(case.work / "step-00004")
    with pytest.raises(StageFailed, match=r"step-00004 does not hold the .*`tldr run train` again"):
        case.confirmed(engine)
    assert engine.asked == []


def test_an_engine_that_serves_other_weights_answers_nothing(case: Case) -> None:
    engine = case.engine(16, 16, 16)
    engine.load = lambda model_path: None  # type: ignore[method-assign]
    with pytest.raises(StageFailed, match=r"The weights that answer are not those of .*step-00004"):
        case.confirmed(engine)
    assert engine.asked == [] and (case.work / CONFIRMED).read_bytes() == b""


def test_where_every_update_asks_all_nobody_answers_again(case: Case) -> None:
    """The scores are those of the updates."""
    case.params = changed(case.params, ratio={"control_questions": None})
    case.rows = [each | BASE.row() for each in case.rows]
    assert case.confirmed(None) == [(step, BASE) for step in (2, 4, 6)]
    assert not (case.work / CONFIRMED).exists()
