"""lm-eval requests served by our engines: ids, seeds, one BOS, nothing lost on the way back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from stages._errors import UserError
from stages.data.prompts import decode_text, load_tokenizer, prompt_ids
from stages.engines.base import DecodeSpec, Engine, Request, Response, answer_seed
from stages.engines.hf import HfEngine
from stages.engines.lm_eval_model import EngineLM, GeneratedText, generation_settings
from stages.tiny.chains import BOS, EOS, VOCABULARY
from tests.toy_model import save_random_model

SPEC = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=4)
BOS_ID = VOCABULARY.index(BOS)


class CountingEngine:
    """Answers `[sample index, number of prompt ids]`, last request first; remembers what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        for request in reversed(list(requests)):
            self.asked.append(request)
            key = answer_seed(seed, request.problem_id, request.sample_index)
            ids = (request.sample_index, len(request.prompt_ids))
            yield Response(request.problem_id, request.sample_index, key, ids, "stop")

    def load(self, model_path: Path) -> None: ...

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None: ...


def make_model(engine: Engine, log_path: Path, **changes: Any) -> EngineLM:
    settings: dict[str, Any] = {
        "encode": lambda prompt: (BOS_ID, *range(10, 10 + len(prompt.split()))),
        "decode": lambda ids: " ".join(map(str, ids)),
        "bos_id": BOS_ID,
        "store": log_path,
        "title": "test",
    }
    return EngineLM(engine, SPEC, 1, **settings | changes)


def instance(task: str, doc_id: int, prompt: str, repeats: int, **settings: Any) -> Instance:
    arguments = (prompt, generation_settings(SPEC) | settings)
    doc = {"id": f"q{doc_id}", "prompt": prompt, "gold": "1"}
    return Instance("generate_until", doc, arguments, 0, (task, doc_id, repeats))


def repeated(*instances: Instance) -> list[Instance]:
    """As lm-eval does it: the same object as often as it is to be answered."""
    return [item for item in instances for _ in range(item.repeats or 1)]


def test_a_generated_text_keeps_everything_through_pickle_and_copy() -> None:
    text = GeneratedText("a 3 </think> answer 7 <eos>", [3, 4, 5], "stop", 2**62)
    for other in (pickle.loads(pickle.dumps(text)), copy.deepcopy(text), copy.copy(text)):
        assert isinstance(other, GeneratedText)
        assert (other, other.text) == ("answer 7", "a 3 </think> answer 7 <eos>")
        assert (other.token_ids, other.num_tokens, other.finish_reason, other.seed) == ((3, 4, 5), 3, "stop", 2**62)


def test_every_repeat_is_a_request_of_its_own_and_answers_come_back_in_order(tmp_path: Path) -> None:
    engine = CountingEngine()
    requests = repeated(instance("a", 0, "x", 3), instance("a", 1, "x y", 3), instance("b", 0, "x y z", 3))
    texts = make_model(engine, tmp_path / "log").generate_until(requests)
    assert texts == ["0 2", "1 2", "2 2", "0 3", "1 3", "2 3", "0 4", "1 4", "2 4"]
    assert len({text.seed for text in texts if isinstance(text, GeneratedText)}) == len(requests)
    assert sorted({request.problem_id for request in engine.asked}) == ["a/q0", "a/q1", "b/q0"]


def test_finished_answers_are_not_drawn_again(tmp_path: Path) -> None:
    first, second = CountingEngine(), CountingEngine()
    half, whole = repeated(instance("a", 0, "x", 2)), repeated(instance("a", 0, "x", 2), instance("a", 1, "x", 2))
    make_model(first, tmp_path / "log").generate_until(half)
    texts = make_model(second, tmp_path / "log").generate_until(whole)
    assert [request.problem_id for request in second.asked] == ["a/q1", "a/q1"]
    assert texts == make_model(CountingEngine(), tmp_path / "other").generate_until(whole)


def test_two_questions_with_one_id_are_refused(tmp_path: Path) -> None:
    twice = [instance("a", 0, "x", 1), instance("a", 1, "x y", 1)]
    twice[1].doc["id"] = "q0"
    with pytest.raises(UserError, match="Two questions have the id a/q0"):
        make_model(CountingEngine(), tmp_path / "log").generate_until(twice)


def test_questions_of_other_tasks_are_numbered_whatever_their_id(tmp_path: Path) -> None:
    engine = CountingEngine()
    others = [instance("a", 0, "x", 1), instance("a", 1, "x y", 1)]
    for other in others:
        other.doc = {"id": "same"}
    assert make_model(engine, tmp_path / "log").generate_until(others) == ["0 2", "0 3"]
    assert sorted(request.problem_id for request in engine.asked) == ["a/0", "a/1"]


@pytest.mark.parametrize("num_bos", [0, 2])
def test_a_prompt_without_exactly_one_bos_is_refused(tmp_path: Path, num_bos: int) -> None:
    model = make_model(CountingEngine(), tmp_path / "log", encode=lambda prompt: (BOS_ID,) * num_bos + (9,))
    with pytest.raises(UserError, match=f"prompt of a/q0 has {num_bos} BOS tokens instead of one"):
        model.generate_until([instance("a", 0, "x", 1)])


def test_a_model_without_bos_is_served(tmp_path: Path) -> None:
    model = make_model(CountingEngine(), tmp_path / "log", encode=lambda prompt: (9,), bos_id=None)
    assert model.generate_until([instance("a", 0, "x", 1)]) == ["0 1"]


@pytest.mark.parametrize("settings", [{"until": ["\n\n"]}, {"max_gen_toks": 256}, {"temperature": 0.0}, {"top_k": 5}])
def test_a_task_with_another_decode_specification_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = make_model(CountingEngine(), tmp_path / "log")
    with pytest.raises(UserError, match=r"Task a asks for .* remove generation_kwargs"):
        model.generate_until([instance("a", 0, "x", 1, **settings)])


def test_log_likelihoods_are_refused(tmp_path: Path) -> None:
    model = make_model(CountingEngine(), tmp_path / "log")
    for method in (model.loglikelihood, model.loglikelihood_rolling):
        with pytest.raises(UserError, match=r"Task a .*generate_until"):
            method([instance("a", 0, "x", 1)])


@pytest.mark.model
def test_the_transformers_engine_answers_with_its_own_ids(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_random_model(tmp_path / "model"))
    prompt = "Q: 9 a + 8 b * 4 ?"
    with HfEngine(tmp_path / "model", "float32", "cpu", processes=1, threads=1, batch_size=8, evict_every=2) as engine:
        settings = {"encode": partial(prompt_ids, tokenizer), "decode": partial(decode_text, tokenizer)}
        model = make_model(engine, tmp_path / "log", **settings)
        texts = model.generate_until(repeated(instance("tiny", 0, prompt, 6)))
        wanted = [Request("tiny/q0", index, prompt_ids(tokenizer, prompt)) for index in range(6)]
        direct = {response.sample_index: response for response in engine.generate(wanted, SPEC, 1)}
    for index, text in enumerate(texts):
        assert isinstance(text, GeneratedText)
        assert (text.token_ids, text.seed) == (direct[index].token_ids, direct[index].seed)
        assert text.finish_reason == ("stop" if text.text.endswith(EOS) else "length")
        assert tuple(tokenizer.convert_tokens_to_ids(text.text.split())) == text.token_ids
    assert len({text.token_ids for text in texts if isinstance(text, GeneratedText)}) > 1
