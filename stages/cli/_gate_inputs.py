"""What `tldr check` reads: the policy, and the results of baseline and candidate. Reads files and git; writes nothing.

Whatever is not there or cannot be read is `Unusable`; what is wrong with an option or a key of the policy is a UserError.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stages._errors import UserError
from stages.cli._gate_end import Unusable
from stages.cli._project import CANDIDATE

if TYPE_CHECKING:
    from stages.data.evaluations import Run
    from stages.evidence.policy import Policy

POLICY = "policy.yaml"
SHALLOW = "in continuous integration check out the whole history (fetch-depth: 0)"


def read_policy(root: Path | None, file: str | None) -> tuple[Policy, str]:
    """The policy and the name by which the user knows it; Unusable without a file, UserError if its content is wrong."""
    from stages._params import read_yaml
    from stages.evidence.policy import check_policy

    if file is None and root is None:
        raise Unusable(f"There is no checkout here, and so no {POLICY}; name a policy with --policy FILE.")
    path, name = (Path(file), file) if file is not None else (root / POLICY, POLICY)  # type: ignore[operator]
    try:
        path.open("rb").close()
    except OSError as error:
        raise Unusable(
            f"The policy {name} cannot be read ({error.strerror}); name another with --policy FILE."
        ) from None
    try:
        return check_policy(read_yaml(path)), name
    except ValueError as error:
        raise UserError(f"{name}: {error}; docs/gate.md lists the keys.") from None


def read_runs(root: Path | None, baseline: str, candidate: str | None) -> tuple[Run, Run]:
    """Baseline and candidate; Unusable with the sentence of the reader where one of them cannot be read."""
    from stages._params import load_params
    from stages.cli._comparison import reading
    from stages.data.evaluations import ReadSettings, open_run

    if candidate is None and root is None:
        raise Unusable(f"There is no checkout here, and so no {CANDIDATE}; name results with --candidate FILE.")
    spec = str(root / CANDIDATE) if candidate is None and root is not None else str(candidate)
    settings = ReadSettings(verifier="math", processes=1)
    if root is not None:
        settings = reading(load_params(root))
    found, revision = baseline_spec(root, baseline, spec)
    try:
        before = open_run(found, root=root, rev=revision, settings=settings)
        after = open_run(spec, root=root, settings=settings)
    except UserError as error:
        raise Unusable(str(error)) from None
    return (
        replace(before, name=f"{revision}:{found}") if revision is not None else before,
        replace(after, name=CANDIDATE) if candidate is None else after,
    )


def baseline_spec(root: Path | None, baseline: str, candidate: str) -> tuple[str, str | None]:
    """What `--baseline` names: a file (or REV:path) and None, or the candidate's file in the checkout and the revision."""
    exists = Path(baseline).exists()
    if exists and not _git_refuses(root, baseline):
        raise UserError(
            f"--baseline {baseline} is a file and a git revision; write ./{baseline} for the file or {baseline}:PATH for the "
            "revision."
        )
    if exists or ":" in baseline:
        return baseline, None
    refusal = _git_refuses(root, baseline)
    if refusal:
        raise Unusable(
            f"--baseline {baseline} is neither a file nor a git revision here ({refusal}); name one of them, and {SHALLOW}."
        )
    if ":" in candidate and not Path(candidate).exists():
        return candidate.partition(":")[2], baseline
    path = Path(candidate).resolve()
    if root is None or not path.is_relative_to(root.resolve()):
        raise UserError(
            f"--baseline {baseline} is a revision, but {candidate} is not in the checkout; write --baseline {baseline}:PATH."
        )
    return path.relative_to(root.resolve()).as_posix(), baseline


def _git_refuses(root: Path | None, revision: str) -> str:
    """Empty if git knows the revision, else why not."""
    words = ["git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        return "git is not installed"
    return "" if done.returncode == 0 else " ".join(done.stderr.split()) or "git cannot read it"
