"""The task itself: text, arithmetic, and the generator's rules."""

import re
from random import Random

import pytest

from stages.tiny.chains import (
    MAX_LENGTH,
    STEP_ERROR,
    VOCABULARY,
    Chain,
    parse_prompt,
    prompt_text,
    random_chain,
    solve,
    write_pass,
    write_response,
)

EXAMPLE = Chain(9, (("+", 8), ("*", 4)))
NO_ERRORS = (0.0,) * MAX_LENGTH


def test_the_worked_example():
    assert prompt_text(EXAMPLE) == "Q: 9 a + 8 b * 4 ?"
    words, answer = write_response(EXAMPLE, 1, Random(0), NO_ERRORS)
    expected = "a 9 + 8 = 6 ; b 6 * 4 = 2 ; wait check 2 : a 9 + 8 = 6 ; b 6 * 4 = 2 ; was 2 ok . </think> answer 2"
    assert " ".join(words) == expected
    assert answer == solve(EXAMPLE) == 2


@pytest.mark.parametrize("length", range(1, MAX_LENGTH + 1))
def test_prompts_parse_back_and_use_the_vocabulary(length):
    rng = Random(length)
    for _ in range(50):
        chain = random_chain(length, rng)
        assert parse_prompt(prompt_text(chain)) == chain
        words, _ = write_response(chain, 6, rng, (0.3,) * MAX_LENGTH)
        assert set(words) | set(prompt_text(chain).split()) <= set(VOCABULARY)


@pytest.mark.parametrize("text", ["", "Q: 1 ?", "Q: 1 a + ?", "Q: 1 b + 2 ?", "Q: 1 a / 2 ?", "Q: x a + 2 ?"])
def test_what_is_no_chain_is_refused(text):
    with pytest.raises(ValueError):
        parse_prompt(text)


def test_lengths_outside_the_task_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.8"):
        random_chain(9, Random(0))


def test_a_wrong_step_stays_wrong():
    """One error, wherever it is, changes the result: no step washes it out."""
    rng = Random(3)
    for _ in range(300):
        chain = random_chain(8, rng)
        errors = [0.0] * 8
        errors[rng.randrange(8)] = 1.0
        assert write_pass(chain, rng, tuple(errors))[1] != solve(chain)


def test_error_rates_are_the_tables():
    rng, trials = Random(4), 40_000
    wrong = [0] * MAX_LENGTH
    for _ in range(trials):
        chain = random_chain(MAX_LENGTH, rng)
        words, _ = write_pass(chain, rng)
        for i, (operation, operand) in enumerate(chain.steps):
            value, result = int(words[7 * i + 1]), int(words[7 * i + 5])
            wrong[i] += result != solve(Chain(value, ((operation, operand),)))
    for count, rate in zip(wrong, STEP_ERROR, strict=True):
        assert abs(count - trials * rate) < 5 * (trials * rate) ** 0.5 + 1


def test_a_disagreeing_check_is_followed_by_the_pass_that_decides():
    rng, seen = Random(5), 0
    for _ in range(500):
        words, answer = write_response(random_chain(4, rng), 3, rng, (0.2,) * MAX_LENGTH)
        text = " ".join(words)
        passes = re.split(r"wait check \d+ :|no again :", text)
        results = [part.split("=")[-1].split()[0] for part in passes]
        assert results[-1] == str(answer) == words[-1]
        seen += "no again :" in text
    assert seen > 100
