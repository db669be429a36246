r"""What the spelling of two mathematical answers settles without algebra: words, choices, bases, units. Strings in and out.

math-verify drops a base (4210_5 and 4210_6 are the same to it) and a unit, and knows neither words nor choices.
"""

from __future__ import annotations

import re

SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u03c0": r"\pi ", "\u221e": r"\infty ",
    "\u2264": r"\le ", "\u2265": r"\ge ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u00b1": r"\pm ",
    "\u00b0": r"^\circ ", "\u00a0": " ", "\u202f": " ", "\u00b2": "^2", "\u00b3": "^3",
}  # fmt: skip
STYLE = r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|boldsymbol)\s*"
SPELLINGS = [
    (re.compile(r"(?<!\\)\$"), ""),
    (re.compile(r"\\degree\b"), r"^\\circ"),
    (re.compile(r"(?:\\left\s*)?\\langle"), "("),
    (re.compile(r"(?:\\right\s*)?\\rangle"), ")"),
    (re.compile(rf"{STYLE}\{{\s*(\\?\$?-?\d[\d,.]*(?:/\d+)?)((?:\s+[A-Za-z ]+)?)\.?\s*\}}"), r"\1\\text{\2}"),
    (re.compile(r"\\text\{\s*\}"), ""),
    (re.compile(r"(?:\s|(?<!\\)\\\\|\\[,;:! ]|(?<=[^.])\.)+$"), ""),
]
LABEL = re.compile(rf"^(?:{STYLE}\{{)?\([A-J]\)(?:\s*\}}[\\ ~:]*|[\\ ~:]+)(?=[^\s\\~:}}])")
THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:\\[,;:! ]|\{,\}|[ ~])+\d{3})+(?:\.\d+)?")
GROUP_SPACE = re.compile(r"\\[,;:! ]|\{,\}|[ ~]")

PERCENT = re.compile(rf"\s*(?:\\?%|(?:{STYLE}\{{)?\s*(?:percent|per cent|\\?%)\s*\}}?)$")
TEXT = re.compile(rf"{STYLE}\{{([^{{}}]*)\}}")
IGNORED = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! ]|~|(?<!\d)\s+|\s+(?!\d)")
WORDY = re.compile(r"[^\\=_^]*[A-Za-z]{3}[^\\=_^]*")
ARTICLE = re.compile(r"^(?:the|an?)\s+(?=[A-Za-z])", re.IGNORECASE)
TIME = re.compile(r"(\d{1,2}:\d\d)(?:[ap]\.?m\.?)?", re.IGNORECASE)
CHOICE = re.compile(r"\(([A-J])\)(?:[^-+*/^=].*)?|([A-J])(?:[.:)].*)?", re.DOTALL)

CLOSED_INFINITY = re.compile(r"\[-\\infty|\\infty\]")

LEFT_SIDE = re.compile(r"^[A-Za-z](?:_\w+)?=")
IN_BASE = re.compile(r"(-?[\dA-F]*\d[\dA-F]*(?:\.\d+)?)_\{?\(?(?:base)?(\d+|[a-z]+)\)?\}?")
DIGITS = re.compile(r"-?[\dA-F]*\d[\dA-F]*(?:\.\d+)?")
NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
BASES = {name: base for base, name in enumerate(NUMERALS, start=2)} | {"sixteen": 16}

UNIT_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram",
    "s": "sec second", "min": "minute", "h": "hr hour", "day": "", "week": "", "month": "", "year": "", "dollar": "USD",
    "cent": "", "degree": "deg", "radian": "rad",
}  # fmt: skip
UNITS = {name: unit for unit, names in UNIT_NAMES.items() for name in (unit, *names.split())}
UNIT = re.compile(rf"{STYLE}\{{(?P<name>[A-Za-z. ]+)(?:\^?(?P<inner>\d))?\s*\}}(?:\^\{{?(?P<outer>\d)\}}?)?$")
SIZES = {"sq": 2, "cu": 3}  # square, cubic and their abbreviations
SIZE_WORD = re.compile(r"\b(?:square|cubic|sq|cu)\b\.?")


def spelled(answer: str) -> str:
    """`answer` in the spelling that math-verify reads: no `$`, `10\\,080` and `10 080` as 10080, 90 degrees as `^\\circ`."""
    text = " ".join("".join(SIGNS.get(sign, sign) for sign in answer).split())
    for pattern, replacement in SPELLINGS:
        text = pattern.sub(replacement, text)
    return GROUP_SPACE.sub("", text) if THOUSANDS.fullmatch(text) else text


def unlabelled(answer: str) -> str:
    r"""Without the letter of a choice: `\textbf{(C)}\ 12` is 12."""
    return LABEL.sub("", answer)


def without_percent(gold: str, answer: str) -> list[tuple[str, str]]:
    """The pairs of which one has to be equal: 28 percent is 28 (the question asks for percent) and 0.28."""
    wanted, given = PERCENT.sub("", gold), PERCENT.sub("", answer)
    pairs = [(wanted, given)]
    if wanted != gold and given == answer:
        pairs.append((rf"\frac{{{wanted}}}{{100}}", answer))
    if wanted == gold and given != answer:
        pairs.append((gold, rf"\frac{{{given}}}{{100}}"))
    return pairs


def settled(gold: str, answer: str) -> bool | None:
    """Verdict on two answers as `spelled` gives them, None if it takes algebra."""
    wanted, given = _plain(gold), _plain(answer)
    if not wanted:
        return None
    if wanted == given or (WORDY.fullmatch(wanted) and wanted.casefold() == given.casefold()):
        return True
    for rule in (_same_choice, _same_time, _same_in_base):
        verdict = rule(wanted, given)
        if verdict is not None:
            return verdict
    if any(len(set(sides) - {None}) > 1 for sides in zip(_unit(gold), _unit(answer), strict=True)):
        return False
    if WORDY.fullmatch(wanted) and TEXT.fullmatch(gold.strip()) and not wanted[0].isdigit():
        return False
    return False if CLOSED_INFINITY.search(given) and not CLOSED_INFINITY.search(wanted) else None


def _plain(answer: str) -> str:
    """Without styles and spaces. Braces stay: `\\frac{12}{3}` is not `\\frac{1}{23}`."""
    return IGNORED.sub("", ARTICLE.sub("", TEXT.sub(r"\1", answer).strip()))


def _same_choice(wanted: str, given: str) -> bool | None:
    """(C) is C and `C. 12`; a bare letter may as well be a variable, so that another answer is left to algebra."""
    gold, answer = CHOICE.fullmatch(wanted), CHOICE.fullmatch(given)
    if gold is None or len(wanted) > 3:
        return None
    same = answer is not None and (gold[1] or gold[2]) == (answer[1] or answer[2])
    return same if same or gold[1] else None


def _same_time(wanted: str, given: str) -> bool | None:
    """5:00 is no ratio."""
    gold, answer = TIME.fullmatch(wanted), TIME.fullmatch(given)
    if gold is None:
        return None
    return answer is not None and gold[1] == answer[1] and (gold[0] == gold[1] or answer[0] == answer[1])


def _same_in_base(wanted: str, given: str) -> bool | None:
    """A base may be missing on one side (the question asks for it); the digits may not differ."""
    gold, answer = _in_base(wanted), _in_base(LEFT_SIDE.sub("", given))
    if gold is None or answer is None or (gold[1] is None and answer[1] is None):
        return None if gold is None or gold[1] is None else False
    return gold[0] == answer[0] and (None in (gold[1], answer[1]) or gold[1] == answer[1])


def _in_base(plain: str) -> tuple[str, int | None] | None:
    """Digits and base of 4210_5, `4210_{five}`; base None for bare digits."""
    match = IN_BASE.fullmatch(plain)
    if match is None:
        return (plain, None) if DIGITS.fullmatch(plain) else None
    base = int(match[2]) if match[2].isdigit() else BASES.get(match[2])
    return None if base is None else (match[1], base)


def _unit(answer: str) -> tuple[str | None, int | None]:
    """The unit an answer ends with, in one spelling, and its power (2 for square); None for what it does not say."""
    if answer.startswith(r"\$"):
        return "dollar", None
    if answer.endswith((r"^\circ", r"^{\circ}")):
        return "degree", None
    match = UNIT.search(answer)
    if match is None:
        return None, None
    name = SIZE_WORD.sub("", match["name"]).strip(" .")
    unit = UNITS.get(name) or UNITS.get(name.removesuffix("s"))
    size = next((power for word, power in SIZES.items() if word in match["name"]), None)
    power = match["inner"] or match["outer"]
    return unit, (int(power) if power else size) if unit else None
