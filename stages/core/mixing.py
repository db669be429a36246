"""Which example stands at which position of the mixture: a function of the recorded ratios alone, no noise.

Positions count examples in global order, over all processes. System-1 is spread evenly by error diffusion, in one of two
units: by examples, where the realised count of every stretch is within one of the request, or by response tokens, where
it is within one longest example (`Mixture` has the proof). The remainder is carried over from window to window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random

SOURCES = ("system1", "system2")
_WHOLE = 10**12  # parts of a share of 1: integers, so that the carried error is exact, ties are ties, nothing drifts


@dataclass(frozen=True)
class Window:
    """From position `start` on, a share `short_share` of the examples (or of their response tokens) is System-1."""

    start: int
    short_share: float


@dataclass(frozen=True)
class _State:
    """The order by tokens before `position`: a function of `windows`, those that start earlier, and of nothing later."""

    windows: tuple[Window, ...] = ()
    position: int = 0
    error: int = 0  # System-1 tokens placed less those requested, in parts of 1 / _WHOLE token
    taken: tuple[int, int] = (0, 0)  # examples of each source

    def leads_to(self, windows: Sequence[Window], position: int) -> bool:
        return self.position <= position and self.windows == _begun(windows, self.position)


class Mixture:
    """The order of the examples when `short_share` counts `unit`: "examples", or "tokens" of the response.

    By tokens, position after position takes the source whose next example leaves the error e nearer to 0, where e is
    the System-1 tokens placed less share * tokens over all examples placed, each with the share of its window. Before
    any position |e| <= L / 2, with L the longest example; so over any stretch, whatever its windows, the System-1
    tokens are within L of the request (of shares rounded to 1e-12), and while shares lie in [s, 1 - s] no run of one
    source holds more than L / s tokens: nothing starves.
    Proof: the next examples, of a and b tokens, lead to e + p or e - q with p = (1 - share) * a and q = share * b. The
    first is taken where e <= (q - p) / 2, so it ends no higher than (p + q) / 2 and no lower than it began; the second
    mirrors this, and p + q <= max(a, b) <= L. A share of 0 or 1 admits one source and leaves e as it is.
    """

    def __init__(self, lengths: Mapping[str, Sequence[int]], seed: int, unit: str) -> None:
        """`lengths`: response tokens of every item of each source. ValueError for an unknown unit, other sources than
        the two, or an example without tokens."""
        if unit not in ("examples", "tokens"):
            raise ValueError(f"the unit of the mixture must be examples or tokens, not {unit!r}")
        if set(lengths) != set(SOURCES):
            raise ValueError(f"the mixture must have the sources {' and '.join(SOURCES)}, not {sorted(lengths)}")
        self._lengths = tuple(tuple(lengths[source]) for source in SOURCES)
        for source, tokens in zip(SOURCES, self._lengths, strict=True):
            if min(tokens, default=1) < 1:
                raise ValueError(f"every example must have 1 token or more; one of {source} has {min(tokens)}")
        self._seed, self._unit = seed, unit
        self._known = _State()  # where the last question ended: saves time, never changes an answer

    def batch(self, windows: Sequence[Window], start: int, stop: int) -> list[tuple[str, int]]:
        """(source, item number) at every position from `start` up to, not including, `stop`.

        The same whatever was asked before; by tokens, a question that goes on where the last one ended costs its own
        length, any other the replay of all earlier positions. ValueError as `assignments`, and for an empty source
        that is asked for (by tokens: wherever before `stop` the share does not exclude it).
        """
        if self._unit == "tokens":
            return self._by_tokens(windows, start, stop)
        return [(source, self._item(SOURCES.index(source), n)) for source, n in assignments(windows, start, stop)]

    def _by_tokens(self, windows: Sequence[Window], start: int, stop: int) -> list[tuple[str, int]]:
        _check(windows, start)
        if stop <= start:
            return []
        known = self._known
        if not known.leads_to(windows, start):
            known = _State()
        error, taken, pairs = known.error, list(known.taken), []
        for position, parts in _parts(windows, known.position, stop):
            side, error = self._choose(error, parts, taken)
            if position >= start:
                pairs.append((SOURCES[side], self._item(side, taken[side])))
            taken[side] += 1
        self._known = _State(_begun(windows, stop), stop, error, (taken[0], taken[1]))
        return pairs

    def _choose(self, error: int, parts: int, taken: Sequence[int]) -> tuple[int, int]:
        """(0 for System-1 or 1 for System-2, the error after it)."""
        if parts in (0, _WHOLE):
            return int(parts == 0), error
        short, long = (self._lengths[side][self._item(side, taken[side])] for side in (0, 1))
        up, down = (_WHOLE - parts) * short, parts * long
        lead = 2 * error + up - down  # has the sign of |error + up| - |error - down|
        return (0, error + up) if lead < 0 or (lead == 0 and 2 * parts >= _WHOLE) else (1, error - down)

    def _item(self, side: int, index: int) -> int:
        return item_at(len(self._lengths[side]), index, self._seed, SOURCES[side])


def assignments(windows: Sequence[Window], start: int, stop: int) -> Iterator[tuple[str, int]]:
    """(source, index in that source's stream) for every position from `start` up to, not including, `stop`.

    ValueError for windows that do not start at 0 and ascend, a share outside [0, 1], or a negative position.
    """
    _check(windows, start)
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


def _parts(windows: Sequence[Window], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(position, share in parts of _WHOLE) from `start` to before `stop`; only 0 and 1 themselves exclude a source."""
    ends = [*(window.start for window in windows[1:]), stop]
    for window, end in zip(windows, ends, strict=True):
        share = window.short_share
        parts = min(max(round(share * _WHOLE), int(share > 0)), _WHOLE - int(share < 1))
        for position in range(max(start, window.start), min(stop, end)):
            yield position, parts


def _begun(windows: Sequence[Window], position: int) -> tuple[Window, ...]:
    return tuple(window for window in windows if window.start < position)


def _check(windows: Sequence[Window], start: int) -> None:
    starts = [window.start for window in windows]
    if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
        raise ValueError(f"windows must start at 0 and ascend, not {starts}")
    for window in windows:
        if not 0.0 <= window.short_share <= 1.0:
            raise ValueError(f"short_share must lie in [0, 1], not {window.short_share!r}")
    if start < 0:
        raise ValueError(f"a position is 0 or more, not {start}")
