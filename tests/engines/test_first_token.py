"""The first tokens of a few answers: a template that opens a thought, a model that does, both, and neither."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from stages._errors import StageFailed
from stages.engines.base import DecodeSpec, Request, Response
from stages.engines.first_token import NUM_ANSWERS, check_first_tokens

OPEN, LINE_FEED, WORD = 1, 2, 3
SPEC = DecodeSpec(0.7, 0.9, 1000)
OPENED, PLAIN = (WORD, OPEN, LINE_FEED), (OPEN, WORD, WORD, WORD, WORD)  # a question may speak of it


class Tokenizer:
    def __init__(self, *words: str) -> None:
        self._words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self._words)}


class Beginner:
    """An engine whose answers begin with `first`, or every third with another word."""

    name = "toy"

    def __init__(self, first: int, *, other: int | None = None) -> None:
        self._first, self._other = first, other
        self.asked: list[Request] = []

    def generate(self, requests: Iterable[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        assert (spec.max_tokens, spec.temperature, spec.top_p, seed) == (1, 0.7, 0.9, 5)
        self.asked = list(requests)
        for place, request in enumerate(self.asked):
            token = self._first if self._other is None or place % 3 else self._other
            yield Response(request.problem_id, request.sample_index, 0, (token,), "length")


def check(
    engine: Beginner, prompt: tuple[int, ...], number: int = 100, words: tuple[str, ...] = ("a", "<think>")
) -> None:
    requests = [Request(f"p{place}", 0, prompt) for place in range(number)]
    check_first_tokens(engine, requests, SPEC, 5, Tokenizer(*words))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [2, 40, 1000])
def test_one_of_the_two_opens_the_thought(number: int) -> None:
    for engine, prompt in ((Beginner(WORD), OPENED), (Beginner(OPEN), PLAIN), (Beginner(OPEN, other=WORD), PLAIN)):
        check(engine, prompt, number)
        assert 1 <= len(engine.asked) <= NUM_ANSWERS
        assert len({request.problem_id for request in engine.asked}) == len(engine.asked)


def test_a_thought_that_is_opened_twice_is_refused() -> None:
    with pytest.raises(
        StageFailed, match=r"opens a thought and the model opens it again \(32 of 32 answers begin with <think>"
    ):
        check(Beginner(OPEN), OPENED)
    check(Beginner(WORD, other=OPEN), OPENED)


def test_a_thought_that_nobody_opens_is_refused() -> None:
    with pytest.raises(
        StageFailed, match=r"Neither the chat template nor the model opens a thought \(32 of 32 answers do not"
    ):
        check(Beginner(WORD), PLAIN)


def test_a_tokenizer_without_the_mark_is_not_asked() -> None:
    engine = Beginner(WORD)
    check(engine, PLAIN, words=("a", "b"))
    assert engine.asked == []
