"""Whether two mathematical answers are equal: by their spelling where that settles it, else by math-verify.

Nothing here has a time limit; `stages.verifier.grade` runs it in processes that have one. Reads and writes no files.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from stages.verifier.final_answer import boxed_answer
from stages.verifier.spelling import IN_BASE, settled, spelled, unlabelled, without_percent

SMALL, SMALL_TOLERANCE = 1e-3, 1e-3  # below this size, numbers must agree to this share
GSM8K_MARK = "####"
KEPT = 1024  # golds and pairs: the samples of a question share their gold and mostly agree. What raises is not kept

Parsed = list[Any]  # what math-verify found: expressions of sympy, then the text that it read


@lru_cache(KEPT)
def gold_text(gold: str) -> str:
    r"""The answer in a gold that may be a whole solution, ending in `#### 18` or holding `\boxed{18}`."""
    return spelled(gold.rpartition(GSM8K_MARK)[2] if GSM8K_MARK in gold else boxed_answer(gold) or gold)


@lru_cache(KEPT)
def same_answer(gold: str, answer: str) -> bool:
    """Whether `answer` equals `gold`, both as `spelled` gives them; raises what math-verify raises."""
    return any(
        _same(wanted, given)
        for plain in dict.fromkeys((answer, unlabelled(answer)))
        for wanted, given in without_percent(gold, plain)
    )


def _same(gold: str, answer: str) -> bool:
    verdict = settled(gold, answer)
    return _equal(list(parsed(gold)), list(parsed(answer))) if verdict is None else verdict


@lru_cache(KEPT)
def shown(answer: str) -> str:
    """How an answer was read, for a person: the expression that math-verify makes of it, or the words."""
    found = parsed(answer)
    if not found or IN_BASE.fullmatch(answer):  # which math-verify reads as if it were decimal
        return answer
    try:
        return str(found[0]).rstrip("0").rstrip(".") if getattr(found[0], "is_Float", False) else str(found[0])
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return answer


@lru_cache(KEPT)
def parsed(answer: str) -> tuple[Any, ...]:
    """What math-verify reads in `answer`; empty if nothing."""
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig()]
    return tuple(parse(f"${answer}$", extraction_config=config, parsing_timeout=0, raise_on_error=True))


def _equal(wanted: Parsed, found: Parsed) -> bool:
    """What math-verify says, but it compares six decimals, to which 3e-19 and 1e-25 are the same: small numbers must
    also agree in size. 1/0 equals nothing. A vector may be written as a tuple. Equations that it cannot solve are all the
    same to it: those are compared here."""
    from math_verify import verify

    wanted, found = _as_tuples(*map(_defined, (wanted, found)))
    if not verify(wanted, found, allow_set_relation_comp=True, timeout_seconds=0, raise_on_error=True):
        return False
    if not _same_equation(wanted, found):
        return False
    small = [number for number in _numbers(wanted) if 0 < abs(number) < SMALL]
    given = _numbers(found) if small else []
    return not given or any(abs(a - b) <= SMALL_TOLERANCE * abs(a) for a in small for b in given)


def _defined(parts: Parsed) -> Parsed:
    from sympy import nan, zoo  # type: ignore[import-untyped]

    return [part for part in parts if part is not nan and part is not zoo]


def _as_tuples(wanted: Parsed, found: Parsed) -> tuple[Parsed, Parsed]:
    """Both; where one side has a vector and the other no matrix, the vector as a tuple."""
    from sympy import MatrixBase, Tuple

    def vector(part: Any) -> bool:
        return isinstance(part, MatrixBase) and 1 in part.shape

    sides = (wanted, found)
    if len({any(isinstance(part, MatrixBase) for part in side) for side in sides}) == 1:
        return sides
    first, second = ([Tuple(*part) if vector(part) else part for part in side] for side in sides)
    return first, second


def _same_equation(wanted: Parsed, found: Parsed) -> bool:
    """Of two equations that do not just give a name to something, whether one is the other, multiplied by a constant; in
    a differential equation parameters are constants."""
    from sympy import Derivative, Dummy, Eq, Symbol, simplify

    first, second = (next((part for part in side if isinstance(part, Eq)), None) for side in (wanted, found))
    if first is None or second is None or (isinstance(first.lhs, Symbol) and isinstance(second.lhs, Symbol)):
        return True
    rates = first.atoms(Derivative) | second.atoms(Derivative)
    names = {rate: Dummy() for rate in rates}  # sympy takes the rate of a letter for 0
    factor = simplify((first.lhs - first.rhs).xreplace(names) / (second.lhs - second.rhs).xreplace(names))
    if factor.is_number:
        return bool(factor.is_finite) and factor != 0
    changing = set(names.values()).union(*(rate.free_symbols for rate in rates))
    return bool(rates) and not factor.free_symbols & changing


def _numbers(parts: Parsed) -> list[Any]:
    """The finite numbers among what math-verify found (expressions, equations, strings); of `x = 3`, 3.

    They stay sympy's: 10^400 is no Python float.
    """
    values: Parsed = [getattr(part, "rhs", part) for part in parts]
    return [value.evalf() for value in values if getattr(value, "is_number", False) and value.is_finite]
