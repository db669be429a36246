"""From a response's text to its thought and its final answer. Strings in, strings out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

OPEN, CLOSE = "<think>", "</think>"
ALTERNATIVE = " ||| "  # between gold answers of which each is accepted; no LaTeX answer holds it
EXACT = re.compile(r"answer\s+(-?\d+)")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is matched whole, so that its brace is passed over


@dataclass(frozen=True)
class Thought:
    """`thought` is None if the response holds no thought; `answer` is the text after it, empty while it is unclosed."""

    thought: str | None
    answer: str
    closed: bool


def is_cut(finish_reason: str) -> bool:
    """Whether an answer was stopped before it ended by itself (`length`, `repetition`): such an answer is wrong."""
    return finish_reason != "stop"


def split_thought(text: str, *, opened_by_prompt: bool = True) -> Thought:
    """Split at the last `</think>`.

    With `opened_by_prompt` (R1 templates) a text without `</think>` is an unfinished thought: it has no answer. Otherwise
    a text without `<think>` is an answer that was given without thinking.
    """
    before, mark, after = text.rpartition(CLOSE)
    if mark:
        return Thought(before.partition(OPEN)[2].strip() if OPEN in before else before.strip(), after.strip(), True)
    if opened_by_prompt or OPEN in text:
        return Thought((text.partition(OPEN)[2] if OPEN in text else text).strip(), "", False)
    return Thought(None, text.strip(), False)


def final_answer_exact(answer_text: str) -> str | None:
    """`answer 7` -> `7`; None for anything else, because a malformed answer is a wrong one."""
    match = EXACT.fullmatch(answer_text.strip())
    return match[1] if match else None


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` whose braces balance (`\{` and `\}` do not count), None if there is none."""
    start = text.rfind(r"\boxed{")
    while start >= 0:
        depth, begin = 0, start + len(r"\boxed")
        for brace in BRACE.finditer(text, begin):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                return text[begin + 1 : brace.start()]
        start = text.rfind(r"\boxed{", 0, start)
    return None


def alternatives(gold: str) -> list[str]:
    """The answers that a gold answer accepts: `80 ||| 81` accepts both, any other gold only itself."""
    return gold.split(ALTERNATIVE)


@lru_cache(maxsize=1024)
def normalise(answer: str) -> str:
    """For exact comparison: outer space, thousands commas and a leading plus go, integers lose leading zeros and `.0`."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer.strip())
    match = re.fullmatch(r"([+-]?)(\d+)(?:\.0*)?", text)
    if not match:
        return text
    digits = match[2].lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits
