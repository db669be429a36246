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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context

from stages._errors import StageFailed, UserError
from stages.core.answers import OPEN, alternatives, final_answer_exact, is_cut, normalise, split_thought
from stages.verifier.final_answer import final_answer
from stages.verifier.spelling import spelled

CPU_SECONDS = 10.0  # per response; a typical one takes 0.003
CLOCK_SECONDS = 120.0  # per response, for one that waits instead of computing; far from what a busy machine needs
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
    """Grades of `items` in their order; `math` uses that many worker processes, `exact` none.

    `on_grade` is called, possibly from another thread, after each response that `math` has graded.
    """
    if verifier == "exact":
        return [grade_exact(*item) for item in items]
    if verifier != "math":
        raise ValueError(f"unknown verifier {verifier!r}")
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("data.verifier is math but math-verify is not installed; run `pip install -e '.[stages]'`.")
    return _grade_math_all(items, processes, on_grade)


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


def _grade_math_all(items: Sequence[Item], processes: int, on_grade: Callable[[], object]) -> list[Grade]:
    """One single-process pool per share of the items, so that a killed worker takes only its own response with it."""
    num_shares = min(processes, len(items))
    grades = [NO_VERDICT] * len(items)
    with contextlib.ExitStack() as stack, _workers_end_with_us():
        workers = _Workers(stack, on_grade)
        shares = [items[offset::num_shares] for offset in range(num_shares)]
        started = [workers.start(share) for share in shares]
        for offset, share in enumerate(shares):
            grades[offset::num_shares] = workers.collect(share, started[offset])
    return grades


@dataclass(frozen=True)
class _Workers:
    """Starts worker processes that end with `stack`."""

    stack: contextlib.ExitStack
    on_grade: Callable[[], object]

    def start(self, share: Sequence[Item]) -> list[Future[Grade]]:
        """Futures of a first harmless task and of `share`, in the order in which one new worker takes them up."""
        executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=_prepare)
        self.stack.callback(executor.shutdown, cancel_futures=True)
        futures = [executor.submit(_ready)]
        with contextlib.suppress(BrokenProcessPool):
            for item in share:
                futures.append(executor.submit(_grade_limited, (CPU_SECONDS, CLOCK_SECONDS), *item))
                futures[-1].add_done_callback(self._count)
        return futures

    def _count(self, future: Future[Grade]) -> None:
        if not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool):
            self.on_grade()

    def collect(self, share: Sequence[Item], futures: list[Future[Grade]]) -> Iterator[Grade]:
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
                    self.on_grade()
                    break
            if num_done == len(share):
                return
            futures = self.start(share[num_done:])


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


def _grade_limited(seconds: tuple[float, float], text: str, finish_reason: str, gold: str) -> Grade:
    """In a worker: grade, or die after that much CPU time or that much time by the clock."""
    signal.setitimer(signal.ITIMER_PROF, seconds[0])
    signal.setitimer(signal.ITIMER_REAL, seconds[1])
    try:
        return grade_math(text, finish_reason, gold)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
