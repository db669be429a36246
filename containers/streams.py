"""Output of a container, which arrives in fragments, written on as whole lines, progress bars included."""

from __future__ import annotations

import threading
from typing import BinaryIO

QUIET_SECONDS = 0.1  # after which a line without an end is shown on a terminal: a prompt, or a bar being drawn


class LineWriter:
    """Writes to `stream` up to the last end of line (LF or CR); the rest waits for more, on a terminal not for long."""

    def __init__(self, stream: BinaryIO, *, terminal: bool) -> None:
        self._stream, self._terminal = stream, terminal
        self._rest = b""
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def write(self, data: bytes) -> None:
        with self._lock:
            self._cancel()
            text = self._rest + data
            end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
            self._rest = text[end:]
            self._put(text[:end])
            if self._rest and self._terminal:
                self._timer = threading.Timer(QUIET_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what is left; the container has ended, or is quiet."""
        with self._lock:
            self._cancel()
            rest, self._rest = self._rest, b""
            self._put(rest)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, data: bytes) -> None:
        if data:
            self._stream.write(data)
            self._stream.flush()
