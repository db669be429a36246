"""`tldr repro` on toy stages: what is refused before DVC starts, and, with the real DVC, exit codes and signals."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages._errors import UserError
from stages._params import read_yaml
from stages.cli._dvc import check_lock, check_repository, stage_exit_code
from stages.cli.repro import dvc_arguments, finish, remove_work
from tests.paths import ROOT

DRY = ["--dry", "--allow-missing", "--force-downstream"]
Tldr = Callable[..., "subprocess.CompletedProcess[str]"]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("pairs", "stage", "dry_run", "force", "expected"),
    [
        ((), None, False, False, ["repro"]),
        ((), "train", True, True, ["repro", *DRY, "--force", "train"]),
        (("seed=2",), None, False, False, ["exp", "run", "-S", "params.yaml:seed=2"]),
        (("seed=2",), "train", True, False, ["exp", "run", "-S", "params.yaml:seed=2", *DRY, "train"]),
    ],
)
def test_arguments_of_dvc(
    checkout: Path, pairs: tuple[str, ...], stage: str | None, dry_run: bool, force: bool, expected: list[str]
) -> None:
    assert dvc_arguments(checkout, pairs, stage, dry_run=dry_run, force=force) == expected


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nosuch"], "There is no stage 'nosuch'; the stages are sample, "),
        (["evaluat"], "(did you mean evaluate?)"),
        (["-S", "ratio.inti=0.5"], "did you mean ratio.init?"),
        (["-S", "ratio.init=2"], "ratio.init = 2"),
        (["-S", "train.lr=fast"], "train.lr = 'fast'"),
        (["--profile", "nosuch"], "There is no profile 'nosuch'; the profiles are none."),
        ([], "run `git init && dvc init` there"),
    ],
)
def test_bad_input_is_refused_before_dvc_starts(checkout: Path, tldr: Tldr, arguments: list[str], part: str) -> None:
    answer = tldr("repro", *arguments)
    assert answer.returncode == 2
    assert part in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (checkout / ".tldr").exists()


def test_bad_parameters_are_refused_before_dvc_starts(checkout: Path, tldr: Tldr) -> None:
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("max_tokens: 640", "max_tokens: 0"))
    answer = tldr("repro")
    assert answer.returncode == 2
    assert "decode.max_tokens = 0" in answer.stderr


def test_without_git_the_sentence_says_what_to_run(checkout: Path) -> None:
    (checkout / ".dvc").mkdir()
    with pytest.raises(
        UserError, match=r"in no git repository, which DVC needs; run `git init .*dvc config core.no_scm"
    ):
        check_repository(checkout, experiment=False)
    (checkout / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    check_repository(checkout, experiment=False)
    with pytest.raises(UserError, match="-S runs are git-tracked experiments"):
        check_repository(checkout, experiment=True)


def test_an_experiment_needs_a_first_commit(checkout: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    (checkout / ".dvc").mkdir()
    check_repository(checkout, experiment=False)
    with pytest.raises(UserError, match="-S runs need a first commit"):
        check_repository(checkout, experiment=True)


def test_a_lock_counts_while_its_process_lives(checkout: Path) -> None:
    path = checkout / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    for pid, cmd in ((2**22 + 1, "dvc repro"), (os.getpid(), "dvc repro train")):
        path.write_text(json.dumps({"write": {"artifacts/x": {"pid": pid, "cmd": cmd}}, "read": {}}))
        if pid != os.getpid():
            check_lock(checkout)
            continue
        with pytest.raises(UserError, match=rf"Another run is using .* \(process {pid}: dvc repro train\)"):
            check_lock(checkout)
    path.write_text("{")
    check_lock(checkout)


@pytest.mark.parametrize(
    ("dvc_code", "last", "expected"),
    [
        (255, {"run": "now", "exit_code": 75}, 75),
        (255, {"run": "now", "exit_code": 0}, 1),
        (255, {"run": "before", "exit_code": 2}, 1),
        (255, {"run": None, "exit_code": 2}, 1),
        (255, {}, 1),
        (252, {}, 130),
        (-signal.SIGINT, {}, 130),
        (-signal.SIGTERM, {}, 75),
        (-signal.SIGKILL, {}, 1),
    ],
)
def test_the_stages_own_code_is_returned(dvc_code: int, last: dict[str, object], expected: int) -> None:
    assert stage_exit_code(dvc_code, last, "now") == expected


def work_folders(root: Path) -> list[str]:
    work = root / ".tldr" / "work"
    return sorted(str(path.relative_to(work)) for path in work.glob("*/*"))


@pytest.mark.dvc
def test_a_run_ends_with_outputs_and_without_partial_work(repository: Path, tldr: Tldr) -> None:
    dry = tldr("repro", "train", "--dry-run")
    assert (dry.returncode, (repository / "artifacts").exists()) == (0, False)
    assert [line[2:] for line in dry.stdout.splitlines() if line.startswith(">")] == [
        "python -m stages run sample",
        "python -m stages run train",
    ]
    assert "Outputs of sample, train are not here" in dry.stderr
    first = tldr("repro", "train", PATH="/usr/bin:/bin")  # as without an activated environment
    assert first.returncode == 0, first.stderr
    assert (repository / "artifacts" / "train.txt").is_file()
    assert work_folders(repository) == ["sample/f00"]
    assert "Running stage" not in tldr("repro", "train").stdout
    assert "Unfinished work" not in first.stderr
    assert tldr("repro", "sample", "--force").stdout.count("Running stage") == 1
    assert work_folders(repository) == []


def test_after_a_run_finished_work_goes_and_what_is_unfinished_or_in_use_stays(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("sample", "evaluate-base"):
        for name in ("finished", "former", "used"):
            folder = checkout / ".tldr" / "work" / stage / name
            folder.mkdir(parents=True)
            (folder / "log.jsonl").write_text("{}" * 100_000)
            if name != "former":
                (folder / "done").write_text("")
    with (checkout / ".tldr" / "work" / "sample" / "used" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_work(checkout, "evaluate")
        assert work_folders(checkout) == ["evaluate-base/former", "sample/finished", "sample/former", "sample/used"]
        expected = "Unfinished work of former runs is kept in .tldr/work (0.2 MB); `tldr gc --all` removes it.\n"
        assert capsys.readouterr().err == expected
        remove_work(checkout, None)
    assert work_folders(checkout) == ["evaluate-base/former", "sample/former", "sample/used"]


@pytest.mark.dvc
@pytest.mark.parametrize(
    ("behaviour", "code", "part"),
    [
        ("train user", 2, "Error: The toy was given a bad file"),
        ("sample full", 1, "Error: The disk is full"),
        ("train kill", 1, "failed to reproduce 'train'"),
    ],
)
def test_the_exit_code_is_the_stages(repository: Path, tldr: Tldr, behaviour: str, code: int, part: str) -> None:
    (repository / "behaviour.txt").write_text(behaviour)
    answer = tldr("repro", "train")
    assert answer.returncode == code
    assert part in answer.stderr
    assert "Traceback" not in answer.stderr
    assert (repository / ".tldr" / "work" / behaviour.split()[0]).is_dir()
    assert not (repository / "artifacts" / "train.txt").exists()


@pytest.mark.dvc
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals_end_dvc_and_the_stage(repository: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C goes to the whole process group, SIGTERM to the command only; a second run meanwhile is refused."""
    (repository / "behaviour.txt").write_text("train sleep")
    command = [sys.executable, "-m", "stages", "repro", "train"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as repro:
        wait_for(repository / "ready")
        stage = json.loads((repository / ".tldr" / "running.json").read_text())["pid"]
        second = subprocess.run(command, capture_output=True, text=True)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert "Another run is using" in second.stderr
        if number == signal.SIGINT:
            os.killpg(repro.pid, number)
        else:
            repro.send_signal(number)
        _, errors = repro.communicate(timeout=30)
    assert repro.returncode == code
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)


def test_the_report_follows_an_evaluation_once_both_models_have_one(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(checkout, "evaluate@base")
    assert "evaluate@base is up to date; `tldr repro` runs the rest" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"results/questions/base\.csv"):
        finish(checkout, None)


@pytest.mark.dvc
def test_a_dry_run_says_why_dvc_cannot_list_all(repository: Path, tldr: Tldr) -> None:
    """A fresh clone, and a value of a later stage is changed: DVC wants to see that stage's input even in a dry run."""
    pipeline = repository / "dvc.yaml"
    line = "deps: [artifacts/sample.txt]"
    pipeline.write_text(pipeline.read_text().replace(line, f"{line}\n    params: [train.lr]"))
    assert tldr("repro", "train").returncode == 0
    for gone in ("artifacts", ".dvc/cache"):
        shutil.rmtree(repository / gone)
    settings = repository / "params.yaml"
    settings.write_text(re.sub(r"(?m)^  lr: .*", "  lr: 0.5", settings.read_text(), count=1))
    answer = tldr("repro", "--dry-run")
    assert answer.returncode == 1
    assert "Outputs of sample, train are not here: these stages run too" in answer.stderr
    assert "DVC cannot list a changed stage whose input is not here; `tldr repro` without --dry-run" in answer.stderr
    assert tldr("repro", "train").returncode == 0
    assert "DVC cannot list" not in tldr("repro", "--dry-run").stderr


@pytest.mark.dvc
def test_an_experiment_takes_its_values(repository: Path, tldr: Tldr) -> None:
    answer = tldr("repro", "sample", "-S", "ratio.init=0.25", "-S", "model.path=my model/x")
    assert answer.returncode == 0, answer.stderr
    assert (repository / "artifacts" / "sample.txt").read_text() == "sample 1 0.25 1"
    text = (repository / "params.yaml").read_text()
    assert "init: 0.25" in text
    assert "path: my model/x" in text
    assert "# starting System-1 share" in text
    (repository / "behaviour.txt").write_text("sample user")
    assert tldr("repro", "sample", "-S", "ratio.init=0.75").returncode == 2
    assert tldr("repro", "sample", "--dry-run", "-S", "ratio.init=0.5").returncode == 0
    assert not list(repository.rglob("*.tmp"))


TOY_PROFILE = f"""# A toy.
profile: toy
ratio: {{init: 0.25, short_bound: {{source: model, path: models/short}}}}
evaluate: {{tasks: [a, b]}}
fetch:
  model: {{repo: org/toy-model, revision: {"12e4" * 10}}}
  data:
  - {{repo: o/d, revision: {"a" * 40}, file: x y.jsonl, sha256: null, path: data/x.jsonl}}
"""


@pytest.mark.dvc
def test_a_profile_is_an_experiment_until_its_values_are_there(repository: Path, tldr: Tldr) -> None:
    (repository / "profiles").mkdir()
    (repository / "profiles" / "toy.yaml").write_text(TOY_PROFILE)
    (repository / "profiles" / "base.yaml").write_text("profile: base\nfetch: {model: null, data: null}\n")
    wanted = read_yaml(repository / "params.yaml")
    overlay = read_yaml(repository / "profiles" / "toy.yaml")
    (repository / "params.yaml").write_text(
        (repository / "params.yaml").read_text().replace("profile: tiny", "profile: base")
    )
    answer = tldr("repro", "sample", "--profile", "toy", "-S", "ratio.init=0.75", "-S", "fetch.model.repo=org/other")
    assert answer.returncode == 0, answer.stderr
    assert 'params.yaml now holds profile="toy", ratio.init=0.25' in answer.stderr
    wanted["profile"], wanted["evaluate"]["tasks"] = "toy", ["a", "b"]
    wanted["ratio"] |= {"init": 0.75, "short_bound": wanted["ratio"]["short_bound"] | overlay["ratio"]["short_bound"]}
    wanted["fetch"] |= {"model": {"repo": "org/other", "revision": "12e4" * 10}, "data": overlay["fetch"]["data"]}
    assert read_yaml(repository / "params.yaml") == wanted
    assert (repository / "artifacts" / "sample.txt").read_text() == "sample 1 0.75 1"
    assert tldr("repro", "sample", "--profile", "toy").returncode == 0
    plain = tldr("repro", "sample", "--profile", "toy")
    assert (plain.returncode, "now holds" in plain.stderr, "exp" in plain.stdout) == (0, False, False)
    assert tldr("repro", "sample", "--profile", "base").returncode == 0
    document = read_yaml(repository / "params.yaml")
    assert (document["profile"], document["fetch"]) == ("base", {"model": None, "short_model": None, "data": None})


@pytest.mark.dvc
def test_a_checkout_without_git_history_runs_when_dvc_is_told_so(checkout: Path, tldr: Tldr) -> None:
    subprocess.run([sys.executable, "-P", "-m", "dvc", "init", "-q", "--no-scm"], cwd=checkout, check=True)
    assert tldr("repro", "sample").returncode == 0


def test_a_missing_engine_is_told_before_dvc_removes_an_output(repository: Path, tldr: Tldr) -> None:
    assert tldr("repro", "train").returncode == 0
    shutil.copytree(ROOT / "containers", repository / "containers", ignore=shutil.ignore_patterns("wheels"))
    params = repository / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("engine: host ", "engine: apptainer ", 1).replace("seed: 1 ", "seed: 2 ", 1))
    refused = tldr("repro", "train", PATH=str(repository / "empty"))
    assert refused.returncode == 2
    assert refused.stderr == (
        "Error: The command apptainer is not on this machine; install it, or set container.engine to another.\n"
    )
    assert (repository / "artifacts" / "sample.txt").exists()
    params.write_text(text.replace("engine: host ", "engine: apptainer ", 1))
    assert tldr("repro", "train", PATH=str(repository / "empty")).returncode == 0, "nothing has to run"


@pytest.mark.parametrize("content", [None, "a: [", "images: 3\n", "images: {}\npublished: {}\n"])
def test_a_broken_image_lock_is_told_before_dvc_starts(repository: Path, tldr: Tldr, content: str | None) -> None:
    text = (repository / "dvc.yaml").read_text()
    named = "params: [{containers/images.yaml: ['run_in.${container.engine}.cpu']}, seed"
    (repository / "dvc.yaml").write_text(text.replace("params: [seed", named, 1))
    (repository / "containers").mkdir()
    if content is not None:
        (repository / "containers" / "images.yaml").write_text(content)
    refused = tldr("repro", "train")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1 and "containers/images.yaml is not" in refused.stderr
    assert not (repository / ".tldr").exists()
