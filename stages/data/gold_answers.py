"""From the answer as a benchmark publishes it to the gold answer that is graded. Strings in, strings out.

What is accepted besides is written with ` ||| ` between (`stages.core.answers.alternatives`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stages.core.answers import ALTERNATIVE, boxed, normalise

INTEGER = re.compile(r"-?\d+")
REMARK = re.compile(r"\s*\([^()]*\)$")  # "080 or 081 (both were accepted)", "9 (apples)"
DOLLAR = re.compile(r"(?<!\\)\$")
EXPONENT = re.compile(r"([+-]?\d+(?:\.\d+)?)e([+-]?\d+)")
NUMPY = re.compile(r"\bnp\.(?=[a-z])")
BARE_POINT = re.compile(r"(?<=\d)\.(?!\d)")  # Python's "-1./3", which math-verify reads as -1


def clean_gold(text: str, gold_format: str) -> str:
    """The gold answer in `text`; ValueError says, as the end of a sentence, why there is none."""
    gold = FORMATS[gold_format](text.strip())
    if not all(part.strip() for part in gold.split(ALTERNATIVE)):
        raise ValueError("holds an empty answer")
    return gold


def _integer(text: str) -> str:
    """AIME and AMC: `070`, `142.0`, `080 or 081 (both were accepted)`."""
    answers = [normalise(part) for part in re.split(r"\s+or\s+", REMARK.sub("", text))]
    if not all(INTEGER.fullmatch(answer) for answer in answers):
        raise ValueError(f'holds "{text}", which is not an integer')
    return ALTERNATIVE.join(answers)


def _latex(text: str) -> str:
    """MATH: math-verify reads it as it is."""
    return text


def _gsm8k(text: str) -> str:
    """GSM8K: the number behind `####`, with thousands commas."""
    _, mark, tail = text.rpartition("####")
    if not mark:
        raise ValueError('holds no "####" before the answer')
    return normalise(tail)


def _boxed(text: str) -> str:
    r"""Minerva: the last `\boxed{...}` of a solution; units and a percent sign stand behind it, numbers are Python's.

    `4.5e33` would be read as 4.5 * e * 33. It becomes LaTeX, and an answer that is written like it stays accepted.
    """
    found = boxed(text)
    if found is None:
        raise ValueError(r"holds no \boxed{...} whose braces balance")
    gold = " ".join(DOLLAR.sub("", found).split())
    number = EXPONENT.fullmatch(gold)
    if number:
        return rf"{number[1]} \times 10^{{{int(number[2])}}}" + ALTERNATIVE + gold
    behind = text.rpartition(rf"\boxed{{{found}}}")[2].lstrip()
    percent = r"\%" if behind.startswith(r"\%") else ""
    return BARE_POINT.sub("", NUMPY.sub(r"\\", gold)) + percent


def _asdiv(text: str) -> str:
    r"""ASDiv: `9 (apples)`; `Mrs. Hilt` may be boxed in `\text{...}` or as it is; several values in any order."""
    values = [normalise(REMARK.sub("", part.strip())) for part in text.split(";")]
    gold = ", ".join(values)
    return rf"\text{{{gold}}}" + ALTERNATIVE + gold if any(character.isalpha() for character in gold) else gold


FORMATS: dict[str, Callable[[str], str]] = {
    "integer": _integer,
    "latex": _latex,
    "gsm8k": _gsm8k,
    "boxed": _boxed,
    "asdiv": _asdiv,
}
