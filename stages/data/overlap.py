"""Find problems that occur in more than one problem set: training on a control or test problem voids the result.

Two problems of different sets are the same when their normalised texts are equal; or when their gold answers are equal
and either the texts are equal once the words that every prompt of a set starts or ends with (a template) are taken
away, or the share of common word n-grams (common / smaller number) is at least `share`; or when that share is at least
`restated_share` and all numbers of one are in the other, whatever their answers: a problem that asks for another form of its
answer, as AIME does of a problem that MATH has too. Prompts of fewer than 2n words are compared whole: with so few n-grams one
phrase would decide. Pure computation, no files.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from stages._errors import StageFailed
from stages._params import Params
from stages.core.answers import normalise
from stages.data.problems import Problem

Words = tuple[str, ...]

MAX_NAMED = 10
STOCK_PHRASE = 100  # problems that share an n-gram ("m and n are relatively prime"), from which on it says nothing
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


@dataclass(frozen=True)
class Likeness:
    """From what share of common n-grams of `ngram` words two problems are the same: `share` where their answers are equal,
    `restated_share` where they are not but the numbers in the texts are."""

    ngram: int
    share: float
    restated_share: float


def likeness(params: Params) -> Likeness:
    data = params.data
    return Likeness(data.overlap_ngram, data.overlap_share, data.overlap_share_restated)


def check_overlap(sets: Mapping[str, Sequence[Problem]], alike: Likeness) -> None:
    """StageFailed naming up to ten pairs if a problem is in two of `sets`."""
    overlaps = find_overlaps(sets, alike)
    if not overlaps:
        return
    named = ", ".join(str(overlap) for overlap in overlaps[:MAX_NAMED])
    more = f" and {len(overlaps) - MAX_NAMED} more" if len(overlaps) > MAX_NAMED else ""
    pairs = "pair of problems is" if len(overlaps) == 1 else "pairs of problems are"
    raise StageFailed(
        f"{len(overlaps)} {pairs} the same in two sets: {named}{more}; remove one of each pair from its file "
        "(data.*.path; keep the control and test sets whole), or raise data.overlap_share or data.overlap_share_restated if "
        "they differ."
    )


def find_overlaps(sets: Mapping[str, Sequence[Problem]], alike: Likeness) -> list[Overlap]:
    """Every pair, in the order of the sets and of the problems in them."""
    entries = [entry for name, problems in sets.items() for entry in _entries(name, problems)]
    same_words: dict[Words, list[int]] = defaultdict(list)
    same_answer: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(entries):
        same_words[entry.words].append(index)
        same_answer[entry.answer].append(index)
    pairs = {pair for indices in same_words.values() for pair in _across(indices, entries)}
    pairs |= _restated(entries, alike)
    for indices in same_answer.values():
        if len({entries[index].set_name for index in indices}) > 1:
            pairs |= _same_whole(indices, entries)
            pairs |= _same_ngrams(indices, entries, alike)
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


def _same_ngrams(indices: Iterable[int], entries: Sequence[_Entry], alike: Likeness) -> set[tuple[int, int]]:
    """Pairs among problems with one answer."""
    ngrams = _ngrams(indices, entries, alike.ngram)
    common = Counter(pair for found in _holders(ngrams).values() for pair in _across(found, entries))
    return {(a, b) for (a, b), number in common.items() if number >= alike.share * min(len(ngrams[a]), len(ngrams[b]))}


def _restated(entries: Sequence[_Entry], alike: Likeness) -> set[tuple[int, int]]:
    """Pairs among all problems. Which to compare is told by the n-grams that few problems have: those that many have would
    pair everything with everything."""
    ngrams = _ngrams(range(len(entries)), entries, alike.ngram)
    rare = (found for found in _holders(ngrams).values() if len(found) < STOCK_PHRASE)
    candidates = {pair for found in rare for pair in _across(found, entries)}
    return {
        (a, b)
        for a, b in candidates
        if len(ngrams[a] & ngrams[b]) >= alike.restated_share * min(len(ngrams[a]), len(ngrams[b]))
        and _same_numbers(entries[a].words, entries[b].words)
    }


def _same_numbers(one: Words, other: Words) -> bool:
    """Whether all numbers of one text are in the other, as often."""
    first, second = (Counter(word for word in words if word[-1].isdigit()) for words in (one, other))
    return first <= second or second <= first


def _ngrams(indices: Iterable[int], entries: Sequence[_Entry], length: int) -> dict[int, set[Words]]:
    """Runs of `length` words of each prompt that has at least twice as many."""
    texts = {index: entries[index].bare for index in indices if len(entries[index].bare) >= 2 * length}
    return {i: {words[at : at + length] for at in range(len(words) - length + 1)} for i, words in texts.items()}


def _holders(ngrams: Mapping[int, set[Words]]) -> dict[Words, list[int]]:
    """The inverted index from n-gram to problems."""
    holders: dict[Words, list[int]] = defaultdict(list)
    for index, grams in ngrams.items():
        for gram in grams:
            holders[gram].append(index)
    return holders


def _overlap(first: _Entry, second: _Entry) -> Overlap:
    return Overlap(first.set_name, first.problem_id, second.set_name, second.problem_id)
