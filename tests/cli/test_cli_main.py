"""The entry point: help, what is imported for it, and how an exception becomes an exit code and a sentence."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from stages.__main__ import COMMANDS, LazyGroup, main
from stages._errors import Interrupted, StageFailed, UserError

HEAVY = {
    "torch", "dvc", "docker", "transformers", "rich", "numpy", "scipy", "pydantic", "ruamel", "pyarrow", "trl", "lm_eval"
}  # fmt: skip


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, (*path, name))


@pytest.mark.parametrize("arguments", [["--help"], ["ratio", "--help"], ["repro", "--help"], ["nosuch"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from stages.__main__ import main\n"
        f"try: main({arguments!r}, prog_name='tldr')\n"
        f"except SystemExit: print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(answer.stderr.splitlines()[-1].split())
    assert imported <= ({"pydantic"} if arguments[0] in COMMANDS else set())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_line_in_the_overview_is_the_commands_own(name: str) -> None:
    module, summary = COMMANDS[name]
    command = importlib.import_module(module).command
    assert command.name == name
    if isinstance(command, click.Group):
        assert command.help == summary


def test_every_command_and_option_has_help() -> None:
    for path, command in commands(main):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name != "controller":
                assert parameter.help, (path, parameter.name)
        answer = CliRunner().invoke(main, [*path, "--help"], prog_name="tldr")
        assert answer.exit_code == 0
        assert max(map(len, answer.output.splitlines())) <= 100


def test_overview_lists_every_command() -> None:
    answer = CliRunner().invoke(main, ["-h"], prog_name="tldr")
    listed = [line.split()[0] for line in answer.output.split("Commands:")[1].splitlines() if line[2:3].isalpha()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("arguments", [["nosuch"], ["repro", "--nosuch"], ["ratio", "step"], ["run"]])
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def failing(error: BaseException) -> click.Group:
    """A group whose only command raises `error`."""

    @click.command("toy")
    def toy() -> None:
        raise error

    class Toys(LazyGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            return toy

    return Toys("tldr")


def wrapped(inner: Exception) -> Exception:
    error = RuntimeError("the writer failed")
    error.__cause__ = inner
    return error


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (UserError("Bad file; mend it."), 2, "Error: Bad file; mend it."),
        (StageFailed("Sets\n overlap."), 1, "Error: Sets overlap."),
        (Interrupted("Stopped; run again."), 75, "Error: Stopped; run again."),
        (KeyboardInterrupt(), 130, "Interrupted; run the same command again"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "disk is full: free some space and run again"),
        (wrapped(OSError(errno.ENOSPC, "No space left on device")), 1, "disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5120 vs 5012"), 1, "disk is full"),
        (MemoryError(), 1, "lower engine.batch_size"),
        (PermissionError(errno.EACCES, "Permission denied", "results/x"), 2, "No permission to use results/x"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "package torch is not installed"),
        (ModuleNotFoundError("No module named 'stages.x'", name="stages.x"), 70, "bug"),
        (KeyError("x"), 70, "This is a bug in tldr (KeyError: 'x'); run again with TLDR_DEBUG=1"),
        (AssertionError(), 70, "This is a bug in tldr (AssertionError);"),
    ],
)
def test_errors_become_one_sentence_and_an_exit_code(error: BaseException, code: int, part: str) -> None:
    answer = CliRunner().invoke(failing(error), ["toy"])
    assert answer.exit_code == code
    assert part in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stdout == ""


@pytest.mark.parametrize("error", [KeyError("x"), UserError("Bad file; mend it.")])
def test_debug_shows_the_traceback_before_the_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLDR_DEBUG", "1")
    lines = CliRunner().invoke(failing(error), ["toy"]).stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("Error: ")


def test_version_is_one_line() -> None:
    answer = CliRunner().invoke(main, ["--version"])
    assert answer.exit_code == 0
    assert answer.stdout.startswith("tldr ")
    assert len(answer.stdout.splitlines()) == 1
