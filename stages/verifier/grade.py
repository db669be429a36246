"""Grade responses: `exact` for the tiny task, `math` (math-verify) for mathematics.

Only the text after the closed thought counts, and where that breaks off before it answers, the box with which the thought
ended (`stages.verifier.final_answer`); a response that ended by itself without closing a thought is all answer (and counts in
the no-think rate), and one that is known to be cut off is wrong whatever it says. A verifier that fails or runs out of
time says so (`Grade.error`): silently wrong would delete long answers. Reads and writes no files.

math-verify's own time-outs use SIGALRM, which needs the main thread, cannot interrupt a computation that does not
return to Python, and counts wall-clock time, so that verdicts would depend on the machine's other work. They are off
here: every response is graded in the main thread of a worker process, under a limit of CPU time that the kernel holds
(and, against a response that waits for ever, a far longer one of wall-clock time).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import cycle, islice
from math import ceil
from multiprocessing import active_children, get_context

from stages._errors import StageFailed, UserError
from stages.core.answers import OPEN, alternatives, final_answer_exact, is_cut, normalise, split_thought
from stages.verifier.final_answer import final_answer
from stages.verifier.spelling import spelled

CPU_SECONDS = 10.0  # per response; a typical one takes 0.003
CLOCK_SECONDS = 120.0  # per response, for one that waits instead of computing; far from what a busy machine needs
CHUNK = 64  # responses given to a worker at once: neighbours share their problem, a message costs as much as a grade
MAX_WAITING = 16  # chunks of one worker: what is in memory, and what it goes on with while another is slow
GOLD_JOIN = " or "
# <eos>, <|im_end|>, </s> and so on after the answer; the marks of the thought are not end tokens.
END_TOKENS = re.compile(r"(?:\s*<(?!/?think>)[^<>\s]+>)+\s*$")

Item = tuple[str, str, str]  # text with special tokens, finish reason, gold answer


@dataclass(frozen=True)
class Grade:
    """`answer` is what was compared with the gold, None if there was none; `gold` how that was read (`math` only);
    `error`: the verifier gave no verdict."""

    correct: bool
    answer: str | None
    error: bool
    gold: str | None = field(default=None, compare=False)


WRONG = Grade(correct=False, answer=None, error=False)
NO_VERDICT = Grade(correct=False, answer=None, error=True)


def grade_all(
    items: Sequence[Item], verifier: str, processes: int, on_grade: Callable[[], object] = lambda: None
) -> list[Grade]:
    """Grades of `items` in their order; see `grade_each`."""
    return list(grade_each(items, verifier, min(processes, ceil(len(items) / CHUNK)), on_grade))


def grade_each(
    items: Iterable[Item], verifier: str, processes: int, on_grade: Callable[[], object] = lambda: None
) -> Generator[Grade]:
    """Grades of `items` in their order, as they come; `math` uses that many worker processes, `exact` none.

    Takes at most `processes` x MAX_WAITING x CHUNK items ahead of the grade it gives. `on_grade` is called, possibly from
    another thread, after each response that `math` has graded. Close it (contextlib.closing) if not all are taken.
    """
    if verifier == "exact":
        return (grade_exact(*item) for item in items)
    if verifier != "math":
        raise ValueError(f"unknown verifier {verifier!r}")
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("data.verifier is math but math-verify is not installed; run `pip install -e '.[stages]'`.")
    return _grade_math_each(items, processes, on_grade)


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
    """The final answer against the gold, without a time limit; raises what math-verify raises.

    An empty gold is an error, not a wrong response. Of alternatives (`80 ||| 81`) any is right.
    """
    from stages.verifier.equality import gold_text, same_answer, shown

    written = answer_text(text, finish_reason)
    if not written:
        return WRONG
    accepted = [gold_text(each) for each in alternatives(gold)]
    if not all(accepted):
        return NO_VERDICT
    thought = split_thought(text)
    answer = final_answer(written, (thought.thought or "") if thought.closed else "")
    correct = answer is not None and any(same_answer(wanted, spelled(answer)) for wanted in accepted)
    return Grade(correct, answer, error=False, gold=GOLD_JOIN.join(map(shown, accepted)))


def _grade_math_each(items: Iterable[Item], processes: int, on_grade: Callable[[], object]) -> Generator[Grade]:
    """Chunks go to the workers in turn, and their grades are collected in the same turn."""
    left = iter(items)
    chunks = iter(lambda: list(islice(left, CHUNK)), [])
    with contextlib.ExitStack() as stack, _workers_end_with_us():
        workers = [stack.enter_context(contextlib.closing(_Worker(on_grade))) for _ in range(processes)]
        for worker, chunk in zip(cycle(workers), islice(chunks, processes * MAX_WAITING)):
            worker.add(chunk)
        for worker in cycle(workers):
            if not worker.waiting:
                return
            yield from worker.collect()
            for chunk in islice(chunks, 1):
                worker.add(chunk)


class _Worker:
    """One worker process, another after one that died; gives the grades of its chunks in the order it was given them."""

    def __init__(self, on_grade: Callable[[], object]) -> None:
        self.waiting: deque[tuple[Sequence[Item], Future[list[Grade]]]] = deque()
        self._on_grade = on_grade
        self._start()

    def _start(self) -> None:
        self._executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=_prepare)
        self._ready = self._executor.submit(_ready)

    def add(self, chunk: Sequence[Item]) -> None:
        self.waiting.append((chunk, self._submit(chunk)))

    def _submit(self, chunk: Sequence[Item]) -> Future[list[Grade]]:
        try:
            future = self._executor.submit(_grade_chunk, (CPU_SECONDS, CLOCK_SECONDS), chunk)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._count(done, len(chunk)))
        return future

    def _count(self, future: Future[list[Grade]], number: int) -> None:
        if not future.cancelled() and not future.exception():
            for _ in range(number):
                self._on_grade()

    def collect(self) -> list[Grade]:
        """Grades of the longest waiting chunk. If the worker died of it, its items are graded again one by one, so that
        only the response that it died of is without a verdict."""
        chunk, future = self.waiting.popleft()
        if self._lives_after(future):
            return future.result()
        grades = [self._alone(item) for item in chunk]
        self.waiting = deque((later, self._submit(later)) for later, _ in self.waiting)
        return grades

    def _alone(self, item: Item) -> Grade:
        future = self._submit([item])
        if self._lives_after(future):
            return future.result()[0]
        self._on_grade()
        return NO_VERDICT

    def _lives_after(self, future: Future[list[Grade]]) -> bool:
        """Whether there is a result; a worker that died over it is replaced. StageFailed if the worker never started."""
        if not isinstance(future.exception(), BrokenProcessPool):
            return True
        if self._ready.exception() is not None:
            raise StageFailed(f"The math verifier does not start ({self._ready.exception()}); run `tldr doctor`.")
        self._executor.shutdown()
        self._start()
        return False

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _workers_end_with_us() -> Iterator[None]:
    """After an exception such as Ctrl-C the workers end at once: a response may take its whole limit."""
    others = set(active_children())
    try:
        yield
    except BaseException:
        for child in set(active_children()) - others:
            child.kill()
        raise


def _prepare() -> None:
    """In a new worker: import once, silence the warning about time-outs, leave Ctrl-C to the parent."""
    import math_verify  # noqa: F401

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # both end the process, whatever it is doing
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _ready() -> Grade:
    return WRONG


def _grade_chunk(seconds: tuple[float, float], chunk: Sequence[Item]) -> list[Grade]:
    return [_grade_limited(seconds, *item) for item in chunk]


def _grade_limited(seconds: tuple[float, float], text: str, finish_reason: str, gold: str) -> Grade:
    """In a worker: grade, or die after that much CPU time or that much time by the clock."""
    signal.setitimer(signal.ITIMER_PROF, seconds[0])
    signal.setitimer(signal.ITIMER_REAL, seconds[1])
    try:
        return grade_math(text, finish_reason, gold)
    except Exception:  # noqa: BLE001 - math-verify and sympy raise anything
        return NO_VERDICT
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
