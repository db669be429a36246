"""Errors a person can act on, each with the exit code that the command line returns for it."""

from __future__ import annotations

import errno
import os

EXIT_STAGE_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 75
EXIT_CTRL_C = 130


DISK_FULL = "The disk is full: free some space and run again, finished answers and steps are kept."
TORCH_WRITE_FAILED = ("PytorchStreamWriter failed writing", "unexpected pos")  # torch.save on a full disk, in its words


class TldrError(Exception):
    """One sentence that says what is wrong, and what to do next."""

    exit_code = EXIT_STAGE_FAILED


class UserError(TldrError):
    """Bad input or usage: a key, a file or an option that the user can correct."""

    exit_code = EXIT_USAGE


class StageFailed(TldrError):
    """A stage refused to go on: its input is well formed, but what it found must not be used."""

    exit_code = EXIT_STAGE_FAILED


class ContainerExit(SystemExit):
    """A stage that ran in a container ended with `code`; it has said why on its own standard error (`message`)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message


class Interrupted(TldrError):
    """Stopped from outside; running the same command again goes on from where it was."""

    exit_code = EXIT_INTERRUPTED


def is_disk_full(error: BaseException | None) -> bool:
    """Whether there was no room to write, also where a library has wrapped the error of the system in one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error) for sign in (os.strerror(errno.ENOSPC), *TORCH_WRITE_FAILED)):
            return True
        error = error.__cause__ or error.__context__
    return False
