"""A trajectory of the ratio, drawn with characters: the System-1 share as columns, tokens and accuracy as lines of bars.

Takes the rows of `tldr ratio simulate`, gives lines of text; nothing is read, written or printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

HEIGHT = 8  # rows of the share
WIDEST = 4  # columns of one update
BLOCKS, PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
AXIS = 9  # columns left of the drawing
ENDING = 18  # and right of it, for first and last value


def draw(rows: Sequence[Mapping[str, float]], width: int, plain: bool) -> list[str]:
    """Lines of at most `width` columns (at least 40 are taken); `plain` is ASCII alone."""
    levels = PLAIN if plain else BLOCKS
    room = max(width, 40) - AXIS - ENDING
    shares = columns([row["system1"] for row in rows], room)
    filled = [round(share * HEIGHT * (len(levels) - 1)) for share in shares]
    lines = ["System-1 share after each update"]
    for row in range(HEIGHT, 0, -1):
        label = {HEIGHT: "1.0", HEIGHT // 2: "0.5", 1: "0.0"}.get(row, "")
        rest = [min(max(level - (row - 1) * (len(levels) - 1), 0), len(levels) - 1) for level in filled]
        lines.append((f"{label:>{AXIS - 2}} |" + "".join(levels[level] for level in rest)).rstrip())
    # The last row ends at the lower edge: 0.0 is written there, 1.0 at the upper edge.
    lines[-1] += " " * (AXIS + len(shares) + 1 - len(lines[-1])) + _ends([row["system1"] for row in rows], ".2f")
    for name, digits in (("tokens", ".0f"), ("accuracy", ".3f")):
        values = [row[name] for row in rows]
        lines.append(f"{name:>{AXIS - 1}} " + sparkline(columns(values, room), levels) + " " + _ends(values, digits))
    per_column = -(-len(rows) // room)
    if per_column > 1:
        lines.append(f"Each column is the mean of up to {per_column} of {len(rows)} updates.")
    return lines


def columns(values: Sequence[float], room: int) -> list[float]:
    """At most `room` values: each repeated where there is room for all, else means of neighbours."""
    if len(values) <= room:
        repeat = min(room // len(values), WIDEST)
        return [value for value in values for _ in range(repeat)]
    size = -(-len(values) // room)
    return [fmean(values[start : start + size]) for start in range(0, len(values), size)]


def sparkline(values: Sequence[float], levels: str) -> str:
    """One sign per value, from the lowest level but blank at the minimum to the highest at the maximum."""
    low, high = min(values), max(values)
    if high == low:
        return levels[len(levels) // 2] * len(values)
    top = len(levels) - 2
    return "".join(levels[1 + round((value - low) / (high - low) * top)] for value in values)


def _ends(values: Sequence[float], digits: str) -> str:
    return f"{values[0]:{digits}} to {values[-1]:{digits}}"
