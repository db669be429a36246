"""Where results are read from: a file, or a file as it stood in a git revision. Reads both; writes nothing.

`Source.name` is what the user wrote: every message begins with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stages._errors import UserError


@dataclass(frozen=True)
class Source:
    """A file at `path`; with `revision`, the content that git holds for `path`, which is then relative to `root`."""

    name: str
    path: Path
    revision: str | None = None
    root: Path | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """A seekable binary stream; UserError with one sentence if there is nothing to read."""
        with self._from_git() if self.revision else self._from_disk() as stream:
            yield stream

    def exists(self) -> bool:
        """Whether there is such a file."""
        if self.revision is None:
            return self.path.is_file()
        return git(self.root, ["cat-file", "-e", self._object]).returncode == 0

    def beside(self, name: str) -> Source:
        """The file `name` in the same folder of the same revision, whether or not it exists."""
        renamed = f"{self.name.removesuffix(self.path.name)}{name}"
        return Source(renamed, self.path.with_name(name), self.revision, self.root)

    @property
    def _object(self) -> str:
        """git's name of the content; `./` makes the path relative to `root`, wherever the repository begins."""
        return f"{self.revision}:./{self.path.as_posix()}"

    def _from_disk(self) -> IO[bytes]:
        if self.path.exists() and not self.path.is_file():
            kind = "a folder; name a file in it" if self.path.is_dir() else "no regular file; save it as one"
            raise UserError(f"{self.name} is {kind}.")
        try:
            return self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.name} does not exist; name a file of results.") from None
        except PermissionError:
            raise UserError(f"{self.name} may not be read; change its owner or mode and run again.") from None
        except OSError as error:
            raise UserError(f"{self.name} cannot be read ({error.strerror}); name another file.") from None

    def _from_git(self) -> IO[bytes]:
        """Into an unnamed temporary file, so that a large table is not held in memory."""
        content = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `open`
        try:
            done = git(self.root, ["cat-file", "blob", self._object], content)
        except BaseException:
            content.close()
            raise
        if done.returncode:
            content.close()
            raise UserError(self._absent())
        content.seek(0)
        return content

    def _absent(self) -> str:
        known = git(self.root, ["rev-parse", "--verify", "--end-of-options", f"{self.revision}^{{commit}}"])
        if known.returncode == 0:
            return (
                f"{self.name}: revision {self.revision} holds no file {self.path.as_posix()}; only files that git tracks "
                "can be read from a revision, such as results/questions/candidate.csv."
            )
        if b"Needed a single revision" in known.stderr:
            return (
                f"{self.name}: git knows no revision {self.revision} here; fetch it (a shallow clone lacks older ones) or "
                "name another."
            )
        reason = known.stderr.decode(errors="replace").strip().removeprefix("fatal: ").partition("\n")[0]
        return f"{self.name}: git cannot read revision {self.revision} ({reason}); correct that or name a file."


def git(
    root: Path | None, arguments: list[str], output: IO[bytes] | int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[bytes]:
    """Run git in `root`, its messages in English; UserError where git is not installed."""
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise UserError("git is not installed, so no revision can be read; install it or name a file.") from None
