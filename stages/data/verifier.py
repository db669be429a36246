"""Grade responses: `exact` for the tiny task, `math` (math-verify) for mathematics.

Only the text after the closed thought counts; a response that ended by itself without closing a thought is all answer
(and counts in the no-think rate), and one that was cut off is wrong whatever it says. A verifier that
fails or runs out of time says so (`Grade.error`): silently wrong would delete long answers. Reads and writes no files.

math-verify's own time-outs use SIGALRM, which needs the main thread, cannot interrupt a computation that does not
return to Python, and counts wall-clock time, so that verdicts would depend on the machine's other work. They are off
here: every response is graded in the main thread of a worker process, under a limit of CPU time that the kernel holds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from stages._errors import StageFailed, UserError
from stages.core.answers import OPEN, alternatives, final_answer_exact, is_cut, normalise, split_thought

CPU_SECONDS = 10.0  # per response; a typical one takes 0.003
SMALL, SMALL_TOLERANCE = 1e-3, 1e-3  # below this size, numbers must agree to this share
# <eos>, <|im_end|>, </s> and so on after the answer; the marks of the thought are not end tokens.
END_TOKENS = re.compile(r"(?:\s*<(?!/?think>)[^<>\s]+>)+\s*$")
DELIMITER = re.compile(r"(?<!\\)\$")

Item = tuple[str, str, str]  # text with special tokens, finish reason, gold answer


@dataclass(frozen=True)
class Grade:
    """`answer` is what was compared with the gold, None if there was none; `error`: the verifier gave no verdict."""

    correct: bool
    answer: str | None
    error: bool


WRONG = Grade(correct=False, answer=None, error=False)
NO_VERDICT = Grade(correct=False, answer=None, error=True)


def grade_all(items: Sequence[Item], verifier: str, processes: int) -> list[Grade]:
    """Grades of `items` in their order; `math` uses that many worker processes, `exact` none."""
    if verifier == "exact":
        return [grade_exact(*item) for item in items]
    if verifier != "math":
        raise ValueError(f"unknown verifier {verifier!r}")
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("data.verifier is math but math-verify is not installed; run `pip install -e '.[stages]'`.")
    return _grade_math_all(items, processes)


def answer_text(text: str, finish_reason: str) -> str:
    """What is graded: the text after the closed thought, without end tokens; empty if the response was cut off.

    Compressed R1 models often stop thinking altogether (most correct answers of the authors' 7B model to MATH-500 hold no
    `</think>`): a response that ended by itself without closing a thought is taken whole.
    """
    if is_cut(finish_reason):
        return ""
    thought = split_thought(text)
    return END_TOKENS.sub("", thought.answer if thought.closed else text.replace(OPEN, "")).strip()


def grade_exact(text: str, finish_reason: str, gold: str) -> Grade:
    """The tiny task: `answer 7` and nothing else."""
    answer = final_answer_exact(answer_text(text, finish_reason))
    if answer is None:
        return WRONG
    return Grade(normalise(answer) in map(normalise, alternatives(gold)), answer, error=False)


def grade_math(text: str, finish_reason: str, gold: str) -> Grade:
    """math-verify on the text after the thought, without a time limit; raises what math-verify raises.

    A gold answer that cannot be parsed is an error, not a wrong response. Of alternatives (`80 ||| 81`) any is right.
    """
    from math_verify import parse

    written = answer_text(text, finish_reason)
    if not written:
        return WRONG
    accepted = [_parse_gold(each) for each in alternatives(gold)]
    if not all(accepted):
        return NO_VERDICT
    found = parse(written, parsing_timeout=0, raise_on_error=True)
    if not found:
        return WRONG
    answer = next((part for part in found if isinstance(part, str)), None)
    return Grade(any(_equal(wanted, found) for wanted in accepted), answer, error=False)


def _parse_gold(gold: str) -> list[Any]:
    from math_verify import parse

    wanted: list[Any] = parse(gold if DELIMITER.search(gold) else f"${gold}$", parsing_timeout=0, raise_on_error=True)
    return wanted


def _equal(wanted: list[Any], found: list[Any]) -> bool:
    """What math-verify says, but it compares six decimals, to which 3e-19 and 1e-25 are the same: small numbers must
    also agree in size."""
    from math_verify import verify

    if not verify(wanted, found, timeout_seconds=0, raise_on_error=True):
        return False
    small = [number for number in _numbers(wanted) if 0 < abs(number) < SMALL]
    given = _numbers(found) if small else []
    return not given or any(abs(a - b) <= SMALL_TOLERANCE * abs(a) for a in small for b in given)


def _numbers(parsed: list[Any]) -> list[Any]:
    """The finite numbers among what math-verify found (expressions, equations, strings); of `x = 3`, 3.

    They stay sympy's: 10^400 is no Python float.
    """
    values = [getattr(part, "rhs", part) for part in parsed]
    return [value.evalf() for value in values if getattr(value, "is_number", False) and value.is_finite]


def _grade_math_all(items: Sequence[Item], processes: int) -> list[Grade]:
    """One single-process pool per share of the items, so that a killed worker takes only its own response with it."""
    num_shares = min(processes, len(items))
    grades = [NO_VERDICT] * len(items)
    with contextlib.ExitStack() as stack:
        shares = [items[offset::num_shares] for offset in range(num_shares)]
        started = [_start(share, stack) for share in shares]
        for offset, share in enumerate(shares):
            grades[offset::num_shares] = _collect(share, started[offset], stack)
    return grades


def _start(share: Sequence[Item], stack: contextlib.ExitStack) -> list[Future[Grade]]:
    """Futures of a first harmless task and of `share`, in the order in which one new worker takes them up."""
    executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=_prepare)
    stack.callback(executor.shutdown, cancel_futures=True)
    futures = [executor.submit(_ready)]
    with contextlib.suppress(BrokenProcessPool):
        for item in share:
            futures.append(executor.submit(_grade_limited, CPU_SECONDS, *item))
    return futures


def _collect(share: Sequence[Item], futures: list[Future[Grade]], stack: contextlib.ExitStack) -> Iterator[Grade]:
    """Grades in order. The first future that a dead worker left behind is the response it died of."""
    num_done = 0
    while True:
        if futures[0].exception() is not None:
            raise StageFailed(f"The math verifier does not start ({futures[0].exception()}); run `tldr doctor`.")
        for future in futures[1:]:
            error = future.exception()
            yield NO_VERDICT if error else future.result()
            num_done += 1
            if isinstance(error, BrokenProcessPool):
                break
        if num_done == len(share):
            return
        futures = _start(share[num_done:], stack)


def _prepare() -> None:
    """In a new worker: import once, silence the warning about time-outs, leave Ctrl-C to the parent."""
    import math_verify  # noqa: F401

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, whatever it is doing


def _ready() -> Grade:
    return WRONG


def _grade_limited(cpu_seconds: float, text: str, finish_reason: str, gold: str) -> Grade:
    """In a worker: grade, or die after that much CPU time."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        return grade_math(text, finish_reason, gold)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
