"""The windows of a run: System-1 share by window, decided on one process and the same on all. No files, no torch."""

from __future__ import annotations

from stages.core.mixing import Window


class Course:
    """Window i starts at step i * `update_every`; its share is the i-th of `shares`, which grows as windows are decided."""

    def __init__(self, update_every: int, batch_size: int, shares: list[float]) -> None:
        self._update_every, self._batch_size = update_every, batch_size
        self.shares = list(shares)

    @property
    def windows(self) -> list[Window]:
        length = self._update_every * self._batch_size
        return [Window(index * length, share) for index, share in enumerate(self.shares)]

    def share_at(self, step: int) -> float:
        """The share of the window that the step `step` (0 is the first) belongs to."""
        return self.shares[step // self._update_every]

    def undecided(self, step: int) -> bool:
        """Whether `step` steps end a window that the next share has not been decided after."""
        return step > 0 and step % self._update_every == 0 and len(self.shares) == step // self._update_every
