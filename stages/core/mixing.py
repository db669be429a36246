"""Which example stands at which position of the mixture: a function of the recorded ratios alone, no state, no noise.

Positions count examples in global order, over all processes. Within a window the System-1 examples are spread evenly by
error diffusion; the remainder is carried over, so the realised count of every stretch is within one of the request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random


@dataclass(frozen=True)
class Window:
    """From position `start` on, a share `short_share` of the examples is System-1."""

    start: int
    short_share: float


def assignments(windows: Sequence[Window], start: int, stop: int) -> Iterator[tuple[str, int]]:
    """(source, index in that source's stream) for every position from `start` up to, not including, `stop`.

    ValueError for windows that do not start at 0 and ascend, a share outside [0, 1], or a negative position.
    """
    _check(windows)
    if start < 0:
        raise ValueError(f"a position is 0 or more, not {start}")
    for number, window in enumerate(windows):
        end = windows[number + 1].start if number + 1 < len(windows) else stop
        if end <= start or window.start >= stop:
            continue
        carried = _requested(windows[:number], window.start)
        for position in range(max(start, window.start), min(stop, end)):
            before = _rounded(carried + (position - window.start) * window.short_share)
            after = _rounded(carried + (position + 1 - window.start) * window.short_share)
            yield ("system1", before) if after > before else ("system2", position - before)


def locate(windows: Sequence[Window], position: int) -> tuple[str, int]:
    """(source, index in that source's stream) of one position."""
    return next(assignments(windows, position, position + 1))


def item_at(num_items: int, index: int, seed: int, source: str) -> int:
    """Which item of a source its `index`-th example is: every item once per epoch, in an order keyed by the epoch."""
    if num_items < 1:
        raise ValueError(f"{source} has no items")
    epoch, place = divmod(index, num_items)
    return _order(num_items, f"mixing/{seed}/{source}/{epoch}")[place]


@lru_cache(maxsize=8)  # neighbouring positions share an epoch
def _order(num_items: int, key: str) -> tuple[int, ...]:
    order = list(range(num_items))
    Random(key).shuffle(order)
    return tuple(order)


def _requested(windows: Sequence[Window], stop: int) -> float:
    """System-1 examples asked for by `windows`, which end at position `stop`."""
    ends = [*(window.start for window in windows[1:]), stop]
    return (
        math.fsum((end - window.start) * window.short_share for window, end in zip(windows, ends, strict=True))
        if windows
        else 0.0
    )


def _rounded(count: float) -> int:
    # The small shift keeps 0.1 + 0.2 style rounding from moving an example.
    return math.floor(count + 0.5 + 1e-9)


def _check(windows: Sequence[Window]) -> None:
    starts = [window.start for window in windows]
    if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
        raise ValueError(f"windows must start at 0 and ascend, not {starts}")
    for window in windows:
        if not 0.0 <= window.short_share <= 1.0:
            raise ValueError(f"short_share must lie in [0, 1], not {window.short_share!r}")
