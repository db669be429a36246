"""The store of finished answers: what outlives a kill and damage, and that nothing is found under a wrong key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages._errors import UserError
from stages._params import Params, check_params, read_yaml
from stages.data.response_store import ResponseStore, store_path
from stages.engines.base import DecodeSpec, Request, Response, answer_seed
from tests.paths import ROOT

SPEC = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=4)
# Draws 50 answers and waits to be killed in the middle of the 51st line.
DRAWS = """
import sys, time
from pathlib import Path
from stages.data.response_store import ResponseStore
from tests.data.test_response_store import answer, request
store = ResponseStore(Path(sys.argv[1]))
for index in range(50):
    store.add(request(index), answer(index))
store._stream.write(b'{"problem_id":"task/q50","sample_')
store._stream.flush()
print("ready", flush=True)
time.sleep(60)
"""


def request(index: int, prompt: tuple[int, ...] = (1, 2)) -> Request:
    return Request(f"task/q{index}", index % 3, prompt)


def answer(index: int) -> Response:
    asked = request(index)
    seed = answer_seed(1, asked.problem_id, asked.sample_index)
    return Response(asked.problem_id, asked.sample_index, seed, (index, 7, index), "stop", -1.5 * index)


def filled(path: Path, count: int) -> Path:
    with ResponseStore(path) as store:
        for index in range(count):
            store.add(request(index), answer(index))
    return path


def known(path: Path, count: int) -> list[int]:
    """Numbers of the answers that the file gives back, each checked to be the one that was put in."""
    with ResponseStore(path) as store:
        found = [index for index in range(count) if request(index) in store]
        assert [store.read(request(index)) for index in found] == [answer(index) for index in found]
    return found


def test_answers_come_back_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert known(filled(tmp_path / "new" / "store.jsonl", 20), 25) == list(range(20))
    assert capsys.readouterr().err == ""


def test_a_killed_process_loses_only_the_line_that_it_was_writing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store.jsonl"
    command = [sys.executable, "-c", DRAWS, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
    assert known(path, 60) == list(range(50))
    message = "has 1 damaged line; the 50 intact answers are kept, the others are drawn again."
    assert message in capsys.readouterr().err
    with ResponseStore(path) as store:
        store.add(request(50), answer(50))
    assert known(path, 60) == list(range(51))
    assert capsys.readouterr().err == "", "the torn line is gone for good"


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"no JSON\n",
        lambda line: b"\xff\xfe\x00\n",
        lambda line: b"[1]\n",
        lambda line: line[: len(line) // 2] + b"\n",
        lambda line: line.replace(b'"token_ids":[4,', b'"token_ids":[5,'),
        lambda line: b"\n",
    ],
    ids=["text", "bytes", "other JSON", "half a line", "another token", "empty"],
)
def test_a_damaged_line_is_drawn_again_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object
) -> None:
    assert callable(damage)
    path = filled(tmp_path / "store.jsonl", 8)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], damage(lines[4]), *lines[5:]]))
    assert known(path, 8) == [0, 1, 2, 3, 5, 6, 7]
    assert len(capsys.readouterr().err.splitlines()) == 1
    with ResponseStore(path) as store:
        store.add(request(4), answer(4))
    assert known(path, 8) == list(range(8))


def test_another_prompt_question_or_repeat_finds_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "store.jsonl", 1)
    with ResponseStore(path) as store:
        assert Request("task/q0", 0, (1, 2)) in store
        for other in (("task/q0", 0, (1, 2, 3)), ("task/q0", 1, (1, 2)), ("other/q0", 0, (1, 2))):
            assert Request(*other) not in store


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    with ResponseStore(path), pytest.raises(UserError, match="in use by another evaluation of this model; wait"):
        ResponseStore(path)
    filled(path, 1)


def test_each_way_of_drawing_has_its_own_file(tmp_path: Path) -> None:
    document = read_yaml(ROOT / "params.yaml")

    def path(model: str = "m1", spec: DecodeSpec = SPEC, **changes: object) -> Path:
        changed = json.loads(json.dumps(document))
        for key, value in changes.items():
            block, _, name = key.partition("__")
            if name:
                changed[block][name] = value
            else:
                changed[block] = value
        return store_path(tmp_path, params(changed), model, spec)

    def params(changed: object) -> Params:
        return check_params(changed, "params.yaml")

    colder = DecodeSpec(temperature=0.5, top_p=1.0, max_tokens=4)
    paths = [path(), path("m2"), path(spec=colder), path(seed=2), path(engine__name="vllm")]
    paths += [path(model__dtype="bfloat16"), path(container__device="cuda")]
    assert len(set(paths)) == len(paths)
    assert path(evaluate__samples=9, engine__batch_size=1) == path()
