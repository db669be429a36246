"""Stage `ratio-schedule`: it takes the base model's answers from `sample`, and only if they are those that it needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stages._errors import StageFailed, UserError
from stages._io import folder_digest
from stages._params import Params, check_params, read_yaml
from stages.core.ratio import Bounds
from stages.data.problems import read_problems
from stages.data.prompts import load_tokenizer
from stages.engines.base import decode_spec
from stages.engines.rollouts import make_requests
from stages.ratio_schedule import _steady_eta, base_answers, shortest_correct
from stages.sample import _write_parquet
from stages.training.control import Score, control_set, score
from tests.paths import ROOT

NUMBER = 2
Row = dict[str, Any]


@pytest.fixture(scope="module")
def control_lines() -> list[str]:
    return (ROOT / "data" / "tiny" / "control.jsonl").read_text().splitlines(keepends=True)[:3]


@pytest.fixture
def folder(tmp_path: Path, control_lines: list[str]) -> Path:
    (tmp_path / "control.jsonl").write_text("".join(control_lines))
    shutil.copytree(ROOT / "models" / "tiny", tmp_path / "model")
    return tmp_path


def parameters(**ratio: Any) -> Params:
    document = read_yaml(ROOT / "params.yaml")
    document["model"]["path"] = "model"
    document["data"]["control"] = {"path": "control.jsonl"}
    document["ratio"] |= {"bound_samples": NUMBER} | ratio
    return check_params(document, "params.yaml")


def rows(folder: Path, params: Params) -> list[Row]:
    """What `sample` writes. Answer 0 is right, of 10 and a few tokens; answer 1 is wrong or, to the last question, cut."""
    model, tokenizer = folder / "model", load_tokenizer(folder / "model")
    problems = read_problems(folder / "control.jsonl")
    written = []
    for place, request in enumerate(make_requests(tokenizer, problems, NUMBER)):
        gold = problems[place // NUMBER].gold
        right, last = request.sample_index == 0, place == len(problems) * NUMBER - 1
        text = f"</think> answer {gold if right else 99999} <eos>"
        ids = list(range(10 + place))
        written.append(
            {
                "source": "control",
                "problem_id": request.problem_id,
                "sample_index": request.sample_index,
                "seed": 1,
                "prompt_ids": list(request.prompt_ids),
                "token_ids": ids,
                "text": text,
                "num_tokens": len(ids),
                "finish_reason": "length" if last else "stop",
                "cumulative_logprob": -1.0,
                "engine": "hf",
                "model_hash": folder_digest(model),
                "decode_hash": decode_spec(params).digest,
            }
        )
    return written


def store(folder: Path, found: list[Row]) -> None:
    _write_parquet(folder / "artifacts" / "control.parquet", found)


def test_bounds_come_from_the_answers_that_were_drawn_before(folder: Path) -> None:
    params = parameters()
    store(folder, rows(folder, params))
    answers = base_answers(folder, params, control_set(folder, params))
    assert [[answer.num_tokens for answer, _ in question] for question in answers] == [[10, 11], [12, 13], [14, 15]]
    assert [[grade.correct for _, grade in question] for question in answers] == [[True, False]] * 3
    measured = score(answers)
    assert measured.question_accuracy == (0.5, 0.5, 0.5) and measured.mean_tokens == 12.5
    assert measured.truncation_rate == pytest.approx(1 / 6)
    assert shortest_correct(answers) == [10.0, 12.0, 14.0]


def refused(folder: Path, params: Params, said: str) -> None:
    with pytest.raises(UserError, match=said):
        base_answers(folder, params, control_set(folder, params))


def test_answers_of_another_model_prompt_or_number_are_refused(folder: Path, control_lines: list[str]) -> None:
    params = parameters()
    refused(folder, params, r"control\.parquet does not exist; run `tldr run sample`")
    found = rows(folder, params)
    store(folder, found)
    refused(folder, parameters(bound_samples=NUMBER + 1), "or not 3 answers to each; run `tldr run sample`")
    store(folder, found[:-1])
    refused(folder, params, "control.parquet holds 1 answers to control:.* but 2 to others")
    store(folder, found[::-1])
    refused(folder, params, "other prompts than the control set")
    store(folder, found)
    changed = json.loads(control_lines[0])
    other = json.loads(control_lines[1])
    (folder / "control.jsonl").write_text(
        json.dumps(changed | {"prompt": other["prompt"]}) + "\n" + "".join(control_lines[1:])
    )
    refused(folder, params, "other prompts than the control set")
    (folder / "control.jsonl").write_text("".join(control_lines[:2]))
    refused(folder, params, "which is not in its problem file")
    (folder / "control.jsonl").write_text("".join(control_lines))
    (folder / "model" / "generation_config.json").write_text("{}")
    refused(folder, params, "was drawn from another model than model.path holds now; run `tldr run sample`")


def test_the_step_is_lowered_where_an_update_knows_the_accuracy_badly() -> None:
    """512 questions at .96: all of them, twice, resolve a gap of 3 points; a part of 32 moves the ratio in smaller steps, so
    that eta times the standard error of the benefit is one half."""
    long = Score((1.0,) * 492 + (0.0,) * 20, (100.0,) * 512, 0.0)
    bounds = Bounds(50.0, 100.0, long.accuracy - 0.03, long.accuracy)
    settings = {"eta": 4.0, "control_samples": 2, "bound_samples": 4, "on_noisy_control": "lower_eta"}
    assert _steady_eta(parameters(**settings, control_questions=None), long, bounds) == 4.0
    part = settings | {"control_questions": 32}
    error = (long.accuracy * (1 - long.accuracy) * (1 / 64 + 1 / 2048)) ** 0.5
    assert _steady_eta(parameters(**part), long, bounds) == pytest.approx(0.5 * 0.03 / error)
    assert _steady_eta(parameters(**part, controller="paper"), long, bounds) == 4.0
    with pytest.raises(StageFailed, match=r"raise ratio\.control_questions or ratio\.control_samples"):
        _steady_eta(parameters(**part | {"on_noisy_control": "error"}), long, bounds)
