r"""Find the final answer in the text after a thought. Strings in, strings out.

A `\boxed{...}` counts wherever it stands. Without one only a conclusion counts: a finished last sentence, and what is
called the answer in it. A number somewhere in a derivation that breaks off is no answer, though by chance it may be right.
"""

from __future__ import annotations

import re

from stages.core.answers import BRACE

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<brace>\{)|(?P<bare>-?\w+(?:\.\d+)?))")
UNCLOSED = re.compile(r"(.+?)(?:\\[)\]]|(?<!\\)\$|\n)")
SEPARATOR = re.compile(r"[,;]|\b(?:and|or)\b")
JOINT = re.compile(r"(?:\s|[,;.$*{}&~]|\\[()\[\],;: ]|\\q?quad|\\text|\b(?:and|or)\b|\b[A-Za-z](?:_\w+)?\s*=)*")
MAX_BOXES, MAX_LENGTH = 20, 2000  # of one list, and characters of one box: loops fill an answer with open boxes
MAX_GAP = 60  # characters between two parts of one list
CLOSING = re.compile(r"[\s.$*\]})\\]*")  # what may stand between a box and the end of a thought

# Logs hold answers that were escaped once more than the thought before them: `\n` for a line end, `\\(` for `\(`.
ESCAPED_LINE = re.compile(r"\\n(?![a-z])")
ESCAPED_SLASH = re.compile(r"\\\\(\\\\)?(?=([A-Za-z()\[\]{},;:!%$])?)")

TAIL = 2000  # characters in which a conclusion is looked for
FORMULA = r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|(?<!\\)\$(?!\d[\d,.]*(?:\s|$))([^$]+?)(?<!\\)\$"
NUMBER = r"((?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\s*\\?%)?)"
FORMULAS = re.compile(FORMULA, re.DOTALL)
CANDIDATE = re.compile(rf"{FORMULA}|{NUMBER}", re.DOTALL)
NAME = re.compile(r"\s*\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([A-Za-z]\))?\s*")
DISPLAY = re.compile(r"\\\[.*?\\\]|\$\$.*?\$\$", re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
ENDED = re.compile(r"(?:[.!?]|\\\]|\$\$)(?:\\[)\]]|[$*\"')\]\s])*$")
ITEM = re.compile(r"(?:[-*\u2022]|\d+[.)])(?:\s|$)")
ANCHOR = re.compile(r"\banswer\b[^.\n]*?(?:\bis\b|:)|\banswer\W*$|^####|\b(?:option|choice)\b(?:\s+is\b)?:?", re.I)
RECONSIDERS = re.compile(
    r"\b(?:wait|hmm|let me(?! know)|let's|maybe|perhaps|suppose|try|(?:re)?check|verif\w+|confirm\w*)\b", re.I
)
CHECKS = re.compile(r"\b(?:verify|check|confirm)\b", re.IGNORECASE)
CONFIRMED = re.compile(r"^(?!.*\b(?:not|but)\b).*(?:\bconfirm\w+|\bverif\w+|\bis correct\b)", re.IGNORECASE | re.DOTALL)
LABEL = re.compile(r"\d+[.)]")  # of a list whose next item was not written
OPEN_FORMULA = re.compile(r"\\[(\[]|(?<!\\)\$(?!\d)")
OPERATOR_END = re.compile(r"[=+\-/,(^_:]$")
REJECTED = re.compile(r",? (?:and )?not\b.*$", re.IGNORECASE)  # "9, not 8"
LETTER = re.compile(r"\(([A-J])\)|\b([A-J])\b(?=\W*$)")
WORDS = re.compile(r"\W*([A-Za-z][A-Za-z ]{1,40}?)\W*")


def final_answer(written: str, thought: str = "") -> str | None:
    """The answer in `written`, LaTeX or words; None if it holds none.

    `thought` is the closed thought before it. Where `written` breaks off before it answers, the box with which the
    thought ended counts (`**Final Answer** \\boxed{8} </think>`); that a response was cut off is the caller's to know.
    """
    text = unescaped(written)
    found = boxed_answer(text) or stated_answer(text)
    if found is None and text.strip() and _breaks_off(text):
        boxes = _boxes(thought)
        if boxes and CLOSING.fullmatch(thought, boxes[-1][1]):
            found = boxed_answer(thought)
    return found


def unescaped(text: str) -> str:
    """`text`, or, if it is one line that holds `\\n` for line ends, what was meant."""
    if "\n" in text.strip() or not ESCAPED_LINE.search(text):
        return text
    slashes = ESCAPED_SLASH.sub(lambda match: "\\\\" if match[1] else "\\" if match[2] else match[0], text)
    return ESCAPED_LINE.sub("\n", slashes)


def boxed_answer(text: str) -> str | None:
    """Content of the last box; of boxes that form a list (`\\boxed{1} and \\boxed{2}`) all, with commas between."""
    boxes = _boxes(text)
    if not boxes:
        return None
    parts = [boxes[-1][2]]
    for earlier, later in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        if not _is_list(text[earlier[1] : later[0]]):
            break
        if earlier[2] not in parts:
            parts.insert(0, earlier[2])
    return ", ".join(parts)


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of the last boxes that are not empty, in order."""
    found = []
    for match in list(BOX.finditer(text))[-MAX_BOXES:]:
        end, content = _closed(text, match) if match["brace"] else (match.end(), match["bare"])
        if content.strip():
            found.append((match.start(), end, content.strip()))
    return found


def _closed(text: str, match: re.Match[str]) -> tuple[int, str]:
    r"""End and content of a box; one whose brace is missing ends with its formula or its line, `\boxed{8$`."""
    depth, begin = 0, match.end("brace")
    for brace in BRACE.finditer(text, begin - 1, begin + MAX_LENGTH):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end(), text[begin : brace.start()]
        if "\n\n" in text[begin : brace.start()]:
            break
    open_end = UNCLOSED.match(text, begin)
    return (open_end.end(), open_end[1]) if open_end else (begin, "")


def _is_list(gap: str) -> bool:
    return len(gap) <= MAX_GAP and bool(SEPARATOR.search(gap)) and bool(JOINT.fullmatch(gap))


def stated_answer(text: str) -> str | None:
    """The answer that the last sentences state in words, formulas or numbers; None if the text breaks off."""
    sentences = _last_sentences(text)
    if not _is_finished(sentences, text.strip()):
        return None
    sentences = _without_check(sentences)
    for place in range(len(sentences) - 1, max(len(sentences) - 4, -1), -1):
        sentence = sentences[place]
        headed = place > 0 and _is_heading(sentences[place - 1])
        anchored = headed or ANCHOR.search(sentence) is not None
        if not anchored and (RECONSIDERS.search(sentence) or ITEM.match(sentence)):
            return None
        found = _candidate(sentence, headed)
        if found is not None:
            return found
    return None


def _last_sentences(text: str) -> list[str]:
    tail = DISPLAY.sub(lambda match: " ".join(match[0].split()), text.strip()[-TAIL:])
    return [sentence.strip() for sentence in SENTENCE_END.split(tail) if sentence.strip()]


def _breaks_off(text: str) -> bool:
    """Whether the text stops within a sentence, a formula or a list."""
    last = _last_sentences(text)[-1]
    return (
        not ENDED.search(text.strip()[-TAIL:])
        or ITEM.match(last) is not None
        or OPEN_FORMULA.search(FORMULAS.sub("", last)) is not None
    )


def _without_check(sentences: list[str]) -> list[str]:
    """Up to the conclusion that the last sentences check: "So it is 44. I can verify this: ..., confirming it."""
    if not CONFIRMED.search(sentences[-1]) or ANCHOR.search(sentences[-1]):
        return sentences
    announced = (place for place in range(len(sentences) - 2, 0, -1) if CHECKS.search(sentences[place]))
    return sentences[: next(announced, len(sentences))]


def _is_finished(sentences: list[str], text: str) -> bool:
    """Whether the text ends with a whole sentence, or with a bare answer (`8`, `**Answer:** 8`)."""
    if not sentences or OPEN_FORMULA.search(FORMULAS.sub("", sentences[-1])):
        return False
    headed = len(sentences) == 1 or _is_heading(sentences[-2])
    if LABEL.fullmatch(sentences[-1]) and not headed:
        return False
    if ENDED.search(text.strip()[-TAIL:]) or headed:
        return True
    return ANCHOR.search(sentences[-1]) is not None and not OPERATOR_END.search(sentences[-1])


def _is_heading(sentence: str) -> bool:
    """`**Final Answer**`, `Answer:`"""
    anchor = ANCHOR.search(sentence)
    return anchor is not None and not CANDIDATE.search(sentence, anchor.end()) and len(sentence) < MAX_GAP


def _candidate(sentence: str, headed: bool) -> str | None:
    """What the sentence gives as the answer: behind `answer is` the first formula or number, else the last one."""
    sentence = REJECTED.sub("", sentence)
    anchor = ANCHOR.search(sentence)
    start = anchor.end() if anchor else 0
    pieces = list(CANDIDATE.finditer(sentence, start))
    telling = [piece for piece in pieces if not NAME.fullmatch(_content(piece))]
    if not telling and not (anchor or headed):
        return None
    if not telling and (letter := LETTER.search(sentence, start)):
        return letter[1] or letter[2]
    if not telling and not pieces:
        words = WORDS.fullmatch(sentence, start)
        return words[1] if words else None
    pieces = telling or pieces
    first = anchor is not None and "=" not in CANDIDATE.sub("", sentence[start:])
    return _joined(sentence, pieces if first else pieces[::-1], forward=first)


def _joined(sentence: str, pieces: list[re.Match[str]], *, forward: bool) -> str:
    """The first of `pieces` with those that form a list with it, in the order of the sentence."""
    taken = pieces[:1]
    for piece in pieces[1:]:
        left, right = (taken[-1], piece) if forward else (piece, taken[-1])
        same_side = _left_side(left) == _left_side(right)  # `a = 2 and b = 3` is no list
        if not same_side or not _is_list(sentence[left.end() : right.start()]):
            break
        taken.append(piece)
    return ", ".join(_content(piece).strip() for piece in (taken if forward else taken[::-1]))


def _left_side(piece: re.Match[str]) -> str:
    return "".join(_content(piece).partition("=")[0].split()) if "=" in _content(piece) else ""


def _content(piece: re.Match[str]) -> str:
    return next(group for group in piece.groups() if group is not None)
