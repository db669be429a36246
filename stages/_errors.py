"""Errors a person can act on, each with the exit code that the command line returns for it."""

from __future__ import annotations

EXIT_STAGE_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 75
EXIT_CTRL_C = 130


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
