"""Find problems that occur in more than one problem set: training on a control or test problem voids the result.

Two problems of different sets are the same when their normalised texts are equal; or when their gold answers are equal
and either the texts are equal once the words that every prompt of a set starts or ends with (a template) are taken
away, or the share of common word n-grams (common / smaller number) is at least `share`. Prompts of fewer than 2n words
are compared whole: with so few n-grams one phrase would decide. Pure computation, no files.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from stages._errors import StageFailed
from stages.core.answers import normalise
from stages.data.problems import Problem

Words = tuple[str, ...]

MAX_NAMED = 10
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
LAYOUT = re.compile(r"\\(?:left|right|text|mathrm|displaystyle|[dt](?=frac)|[,;:! ])")
# Numbers, words and single symbols; operators are words, punctuation and LaTeX grouping are not.
WORD = re.compile(r"\d+(?:\.\d+)?|\.\d+|[^\W\d_]+|[^\w\s]")
IGNORED = frozenset(".,;:?\"'`$\\{}&~\u2018\u2019\u201c\u201d")


@dataclass(frozen=True)
class Overlap:
    """One problem in two sets; `str` gives `system1:a ~ test:b`."""

    first_set: str
    first_id: str
    second_set: str
    second_id: str

    def __str__(self) -> str:
        return f"{self.first_set}:{self.first_id} ~ {self.second_set}:{self.second_id}"


@dataclass(frozen=True)
class _Entry:
    set_name: str
    problem_id: str
    answer: str
    words: Words
    bare: Words  # `words` without the template of the set


def check_overlap(sets: Mapping[str, Sequence[Problem]], ngram: int, share: float) -> None:
    """StageFailed naming up to ten pairs if a problem is in two of `sets`."""
    overlaps = find_overlaps(sets, ngram, share)
    if not overlaps:
        return
    named = ", ".join(str(overlap) for overlap in overlaps[:MAX_NAMED])
    more = f" and {len(overlaps) - MAX_NAMED} more" if len(overlaps) > MAX_NAMED else ""
    pairs = "pair of problems is" if len(overlaps) == 1 else "pairs of problems are"
    raise StageFailed(
        f"{len(overlaps)} {pairs} the same in two sets: {named}{more}; remove one of each pair from its file "
        "(data.*.path; keep the control and test sets whole), or raise data.overlap_share if they differ."
    )


def find_overlaps(sets: Mapping[str, Sequence[Problem]], ngram: int, share: float) -> list[Overlap]:
    """Every pair, in the order of the sets and of the problems in them."""
    entries = [entry for name, problems in sets.items() for entry in _entries(name, problems)]
    same_words: dict[Words, list[int]] = defaultdict(list)
    same_answer: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        same_words[entry.words].append(index)
        same_answer[entry.answer].append(index)
    pairs = {pair for indices in same_words.values() for pair in _across(indices, entries)}
    for indices in same_answer.values():
        if len({entries[index].set_name for index in indices}) > 1:
            pairs |= _same_whole(indices, entries)
            pairs |= _same_ngrams(indices, entries, ngram, share)
    return [_overlap(entries[first], entries[second]) for first, second in sorted(pairs)]


def normalised_words(text: str) -> Words:
    """Case, punctuation and LaTeX layout removed; numbers and operators kept as words."""
    text = THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return tuple(word for word in WORD.findall(LAYOUT.sub(" ", text)) if word not in IGNORED)


def _entries(set_name: str, problems: Sequence[Problem]) -> list[_Entry]:
    texts = [normalised_words(problem.prompt) for problem in problems]
    start = _common_length(texts)
    end = _common_length([words[start:][::-1] for words in texts])
    return [
        _Entry(set_name, problem.id, _answer_key(problem.gold), words, words[start : len(words) - end])
        for problem, words in zip(problems, texts, strict=True)
    ]


def _common_length(texts: Sequence[Words]) -> int:
    """Leading words that all texts share; 0 for fewer than two different texts, where nothing tells it from content."""
    if len(set(texts)) < 2:
        return 0
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _answer_key(gold: str) -> str:
    """Normalised answer without LaTeX delimiters, so that 080, $80$ and 80.0 are one."""
    return normalise(gold.replace("$", "").replace(" ", "").casefold())


def _across(indices: Iterable[int], entries: Sequence[_Entry]) -> Iterable[tuple[int, int]]:
    """Pairs of problems from different sets."""
    return ((a, b) for a, b in combinations(indices, 2) if entries[a].set_name != entries[b].set_name)


def _same_whole(indices: Sequence[int], entries: Sequence[_Entry]) -> set[tuple[int, int]]:
    by_text: dict[Words, list[int]] = defaultdict(list)
    for index in indices:
        for words in {entries[index].words, entries[index].bare} - {()}:
            by_text[words].append(index)
    return {pair for found in by_text.values() for pair in _across(found, entries)}


def _same_ngrams(indices: Sequence[int], entries: Sequence[_Entry], ngram: int, share: float) -> set[tuple[int, int]]:
    """Pairs among problems with one answer, through an inverted index from n-gram to problems."""
    holders: dict[Words, list[int]] = defaultdict(list)
    num_ngrams = {}
    for index in indices:
        words = entries[index].bare
        if len(words) >= 2 * ngram:
            ngrams = {words[i : i + ngram] for i in range(len(words) - ngram + 1)}
            num_ngrams[index] = len(ngrams)
            for gram in ngrams:
                holders[gram].append(index)
    common = Counter(pair for found in holders.values() for pair in _across(found, entries))
    return {(a, b) for (a, b), count in common.items() if count >= share * min(num_ngrams[a], num_ngrams[b])}


def _overlap(first: _Entry, second: _Entry) -> Overlap:
    return Overlap(first.set_name, first.problem_id, second.set_name, second.problem_id)
