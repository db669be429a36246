"""One model's results as every comparison takes them, wherever they were read from. Nothing is read or written here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stages.evidence.comparability import Conditions
from stages.evidence.questions import QuestionRow

if TYPE_CHECKING:  # numpy and scipy, which reading a line does not need
    from stages.evidence.estimates import QuestionTable

Key = tuple[str, str, int]  # task, question id, sample index
Shape = tuple[int, int]  # questions, samples of each


@dataclass(frozen=True)
class ReadSettings:
    """How answers without verdicts are graded: `verifier` (math or exact) in so many `processes`.

    Of more than `max_error_rate` of them without a verdict nothing can be said: they count as wrong, long ones most of all.
    """

    verifier: str
    processes: int
    max_error_rate: float = 0.01


@dataclass(frozen=True)
class Trace:
    """An answer in full: `answer` is what was graded of `text`, None if none was found; problem and gold may be empty."""

    problem: str
    gold: str
    text: str
    answer: str | None


class Reader(Protocol):
    """One kind of file. `conditions` and `notes` are known only once `rows` has been read to its end."""

    def rows(self) -> Iterator[QuestionRow]:
        """One row per answer, as a stream."""

    def conditions(self, shapes: Mapping[str, Shape]) -> Conditions:
        """What the files say of how the run was measured; `shapes` are those of the tables that the rows gave."""

    def notes(self) -> list[str]:
        """Sentences on what the files leave open, for whoever reads the comparison."""

    def refusal(self, error: ValueError) -> str:
        """One sentence with the next step for rows that form no tables."""

    def texts(self, keys: Collection[Key]) -> dict[Key, Trace]:
        """The answers with these keys, read again; only those that the files hold."""


@dataclass(frozen=True, eq=False)
class Run:
    """`name` is what the user wrote; `tables` by task; `notes` are sentences on what the files leave open."""

    name: str
    tables: dict[str, QuestionTable]
    conditions: Conditions
    notes: tuple[str, ...]
    read_texts: Callable[[Collection[Key]], dict[Key, Trace]]

    def texts(self, keys: Collection[Key]) -> dict[Key, Trace]:
        """The answers with these (task, question id, sample index), read from the files; empty where there are none."""
        return self.read_texts(frozenset(keys)) if keys else {}
