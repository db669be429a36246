"""The tiny task: chains of 1 to 8 operations modulo 11, and the redundant reasoner that solves them.

A problem is a start value and a list of (operation, operand); a trace writes every step, then re-checks itself a random
number of times. This module holds the vocabulary, the text of a problem and of a trace, and the generator of traces.

    prompt    Q: 9 a + 8 b * 4 ?  <think>
    response  a 9 + 8 = 6 ; b 6 * 4 = 2 ; wait check 2 : a 9 + 8 = 6 ; b 6 * 4 = 2 ; was 2 ok . </think> answer 2

A check names the answer it checks before and after its pass: without the two copies a model of this size never learns to
compare two passes (it said `no` to 14 % of disagreeing checks and to 11 % of agreeing ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

MODULUS = 11
MAX_LENGTH = 8
LETTERS = tuple("abcdefgh")
OPERATIONS = ("+", "-", "*")
MAX_CHECKS = 6
# Chance that step i of a pass is written wrong; hard chains therefore need the checks that easy ones waste.
STEP_ERROR = (0.0005, 0.0005, 0.001, 0.005, 0.02, 0.03, 0.04, 0.05)

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
THINK, END_THINK = "<think>", "</think>"
VOCABULARY = (
    PAD, BOS, EOS, UNK, THINK, END_THINK,
    *(str(value) for value in range(MODULUS)), *LETTERS, *OPERATIONS,
    "Q:", "?", "=", ";", ":", ".", "wait", "check", "was", "ok", "no", "again", "answer",
)  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """`start` and every operand lie in 0..10; factors of `*` are never 0, so that a wrong value stays wrong."""

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def length(self) -> int:
        return len(self.steps)


def apply(value: int, operation: str, operand: int) -> int:
    """One step, modulo 11."""
    if operation == "+":
        return (value + operand) % MODULUS
    if operation == "-":
        return (value - operand) % MODULUS
    return (value * operand) % MODULUS


def solve(chain: Chain) -> int:
    value = chain.start
    for operation, operand in chain.steps:
        value = apply(value, operation, operand)
    return value


def random_chain(length: int, rng: Random) -> Chain:
    """A uniform chain of `length` steps (1 to 8)."""
    if not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"chain length {length} is outside 1..{MAX_LENGTH}")
    steps = []
    for _ in range(length):
        operation = OPERATIONS[rng.randrange(len(OPERATIONS))]
        operand = rng.randrange(1, MODULUS) if operation == "*" else rng.randrange(MODULUS)
        steps.append((operation, operand))
    return Chain(rng.randrange(MODULUS), tuple(steps))


def prompt_text(chain: Chain) -> str:
    """`Q: 9 a + 8 b * 4 ?`, without BOS and `<think>`: the chat template of the tokenizer adds both."""
    words = ["Q:", str(chain.start)]
    for letter, (operation, operand) in zip(LETTERS, chain.steps, strict=False):
        words += [letter, operation, str(operand)]
    return " ".join([*words, "?"])


def parse_prompt(text: str) -> Chain:
    """Inverse of `prompt_text`; ValueError if the text is not a chain."""
    words = text.split()
    if len(words) < 6 or words[0] != "Q:" or words[-1] != "?" or (len(words) - 3) % 3:
        raise ValueError(f"not a chain prompt: {text!r}")
    body = words[2:-1]
    steps = tuple((body[i + 1], int(body[i + 2])) for i in range(0, len(body), 3))
    if tuple(body[::3]) != LETTERS[: len(steps)] or any(op not in OPERATIONS for op, _ in steps):
        raise ValueError(f"not a chain prompt: {text!r}")
    return Chain(int(words[1]), steps)


def write_pass(chain: Chain, rng: Random, step_error: tuple[float, ...] = STEP_ERROR) -> tuple[list[str], int]:
    """Words of one pass and its result. A wrong step is wrong uniformly, and later steps go on from it."""
    words, value = [], chain.start
    for position, (operation, operand) in enumerate(chain.steps):
        result = apply(value, operation, operand)
        if rng.random() < step_error[position]:
            result = (result + rng.randrange(1, MODULUS)) % MODULUS
        words += [LETTERS[position], str(value), operation, str(operand), "=", str(result), ";"]
        value = result
    return words, value


def write_response(
    chain: Chain, num_checks: int, rng: Random, step_error: tuple[float, ...] = STEP_ERROR
) -> tuple[list[str], int]:
    """Words of a whole response (after `<think>`, without EOS) and its answer.

    A check that disagrees with the current answer is followed by one more pass. The majority of the three, else the last,
    wins; since the two before it differ, that is always the result of the extra pass.
    """
    words, current = write_pass(chain, rng, step_error)
    for _ in range(num_checks):
        check_words, checked = write_pass(chain, rng, step_error)
        words += ["wait", "check", str(current), ":", *check_words, "was", str(current)]
        if checked == current:
            words.append("ok")
            continue
        again_words, current = write_pass(chain, rng, step_error)
        words += ["no", "again", ":", *again_words]
    return [*words, ".", END_THINK, "answer", str(current)], current
