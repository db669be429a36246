"""Exit codes and error sentences: the one place where an exception becomes what a person reads.

0 done; 1 a stage failed; 2 usage or bad input; 70 a bug; 75 stopped, goes on when run again; 130 Ctrl-C.
TLDR_DEBUG=1 prints the traceback before the sentence.
"""

from __future__ import annotations

import os

import click

from stages._errors import (
    DISK_FULL,
    EXIT_BUG,
    EXIT_CTRL_C,
    EXIT_STAGE_FAILED,
    EXIT_USAGE,
    TldrError,
    is_disk_full,
)

PASSED_ON = (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit, BrokenPipeError)
INSTALL = "pip install -e '.[stages]'"


class ExitCodes:
    """Context manager round a command: an exception ends the process with its exit code and one sentence."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, PASSED_ON):
            return
        code, sentence = describe(error)
        if os.environ.get("TLDR_DEBUG") == "1":
            import traceback

            traceback.print_exception(error)
        click.echo(f"Error: {sentence}", err=True)
        raise click.exceptions.Exit(code)


def describe(error: BaseException) -> tuple[int, str]:
    """Exit code and one sentence with the next step."""
    if isinstance(error, TldrError):
        return error.exit_code, _one_line(error)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_CTRL_C, "Interrupted; run the same command again to go on, finished answers and steps are kept."
    if is_disk_full(error):
        return EXIT_STAGE_FAILED, DISK_FULL
    if isinstance(error, MemoryError):
        return EXIT_STAGE_FAILED, "Out of memory: lower engine.batch_size or train.micro_batch_size and run again."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for it
        return EXIT_STAGE_FAILED, (
            "Out of GPU memory: lower engine.batch_size, train.micro_batch_size or decode.max_tokens and run again; "
            "finished answers and steps are kept."
        )
    if isinstance(error, PermissionError) and error.filename:
        return EXIT_USAGE, f"No permission to use {error.filename}; change its owner or mode and run again."
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("stages"):
        return EXIT_USAGE, f"The package {error.name} is not installed; install the stages with `{INSTALL}`."
    about = f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")
    return EXIT_BUG, f"This is a bug in tldr ({about}); run again with TLDR_DEBUG=1 for the traceback, and report it."


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
