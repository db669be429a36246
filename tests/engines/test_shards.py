"""Answers drawn by several jobs: whose they are, what the stage takes over, and what it does not."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from stages._errors import UserError
from stages._work import FINISHED, survey, work_folder
from stages.data.response_store import ResponseStore
from stages.engines.base import Request, Response
from stages.engines.shards import Shard, has_shards, leave_record, mark_taken, merged_record, take_over

RECORD: dict[str, Any] = {"python": "3.11.7", "libraries": {"torch": "2.13.0"}, "device_name": None}
REQUESTS = [Request(f"p{p}", sample, (1, p)) for p in range(7) for sample in range(2)]
LOG = Path("deep", "answers.jsonl")


def draw(root: Path, shard: Shard, *, seed: int = 1, **record: Any) -> Path:
    """What a job leaves: an answer to each of its requests."""
    with shard.work_folder(root, "sample", {"seed": seed}, []) as folder:
        leave_record(folder, RECORD | record)
        add(folder, shard.take(REQUESTS))
        return folder


def add(folder: Path, requests: list[Request], token: int = 5) -> None:
    with ResponseStore(folder / LOG) as store:
        for request in requests:
            store.add(request, Response(request.problem_id, request.sample_index, 1, (token,), "stop"))


def taken_over(root: Path) -> tuple[Any, list[Request], list[Path]]:
    """What `take_over` returns, the requests that are answered in the stage's folder then, and the shards it took."""
    with work_folder(root, "sample", {"seed": 1}, []) as work:
        taken = take_over(root, "sample", work, RECORD)
        with ResponseStore(work / LOG) as store:
            return taken, [request for request in REQUESTS if request in store], taken.folders


def test_shards_are_whole_problems_and_together_everything_once() -> None:
    for count in (1, 2, 3, 20):
        shares = [Shard(index, count).take(REQUESTS) for index in range(count)]
        assert sorted((r.problem_id, r.sample_index) for share in shares for r in share) == [
            (r.problem_id, r.sample_index) for r in REQUESTS
        ]
        for share in shares:
            assert all(len([r for r in share if r.problem_id == one.problem_id]) == 2 for one in share)


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/", "a/b", "1/2/3", "", "0/0"])
def test_a_shard_that_does_not_exist_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Shard.parse(text)


def test_answers_of_all_shards_are_taken_and_none_is_drawn_twice(tmp_path: Path, capfd: Any) -> None:
    assert not has_shards(tmp_path, "sample")
    for index in range(3):
        draw(tmp_path, Shard(index, 3))
    with work_folder(tmp_path, "sample", {"seed": 1}, []) as work:
        add(work, REQUESTS[:3], token=9)  # the stage's own, from a run that was interrupted
    assert has_shards(tmp_path, "sample")
    taken, answered, _ = taken_over(tmp_path)
    assert answered == REQUESTS
    lines = (work / LOG).read_text().splitlines()
    assert len(lines) == len(REQUESTS)
    assert sum('"token_ids":[9]' in line for line in lines) == 3
    assert capfd.readouterr().err == "sample: 11 answers taken over from 3 shards\n"
    mark_taken(taken)
    _, answered, folders = taken_over(tmp_path)
    assert not folders, "what a finished run used is not used again"
    assert all(found.state == FINISHED for base in tmp_path.rglob("sample-shard-*") for found in survey(base))


def test_a_missing_shard_costs_its_answers_only(tmp_path: Path) -> None:
    draw(tmp_path, Shard(1, 3))
    draw(tmp_path, Shard(0, 2))  # cut otherwise: some answers are in both
    _, answered, folders = taken_over(tmp_path)
    assert len(folders) == 2
    wanted = {*Shard(1, 3).take(REQUESTS), *Shard(0, 2).take(REQUESTS)}
    assert set(answered) == wanted
    assert len(wanted) < len(REQUESTS)


def test_a_shard_of_other_parameters_is_left_alone_and_named(tmp_path: Path, capfd: Any) -> None:
    draw(tmp_path, Shard(0, 2), seed=2)
    _, answered, folders = taken_over(tmp_path)
    assert not answered
    assert not folders
    assert capfd.readouterr().err == (
        "sample: 1 shard was drawn with other parameters, inputs, code or image, and is not used\n"
    )


def test_a_shard_that_is_being_drawn_is_waited_for(tmp_path: Path) -> None:
    with (
        Shard(1, 2).work_folder(tmp_path, "sample", {"seed": 1}, []),
        pytest.raises(UserError, match=r"^Shard 1/2 of sample is being drawn; wait until"),
    ):
        taken_over(tmp_path)


def test_a_disk_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    for index in range(2):
        draw(tmp_path, Shard(index, 2))
    assert taken_over(tmp_path)[1] == REQUESTS


def test_a_shard_of_another_stage_is_none_of_ours(tmp_path: Path) -> None:
    with Shard(0, 2).work_folder(tmp_path, "evaluate-base", {"seed": 1}, []) as folder:
        add(folder, REQUESTS)
    assert not has_shards(tmp_path, "sample")
    assert taken_over(tmp_path)[1] == []


def test_a_shard_drawn_with_other_libraries_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, Shard(0, 2), libraries={"torch": "2.12.0"})
    with pytest.raises(
        UserError, match=r"Shard 0/2 of sample was drawn with torch 2.12.0, but this job has 2.13.0; run"
    ):
        taken_over(tmp_path)


def test_a_shard_that_ended_before_its_record_is_no_obstacle(tmp_path: Path) -> None:
    with Shard(0, 2).work_folder(tmp_path, "sample", {"seed": 1}, []):
        pass
    assert taken_over(tmp_path)[1] == []


def test_every_gpu_that_drew_is_in_the_provenance(tmp_path: Path) -> None:
    for index, name in enumerate(("H200", "A100", "H200")):
        draw(tmp_path, Shard(index, 3), device_name=name)
    taken, _, _ = taken_over(tmp_path)
    assert merged_record(RECORD, taken)["device_name"] == "A100, H200"
    assert merged_record(RECORD | {"device_name": "B200"}, taken)["device_name"] == "A100, B200, H200"
    assert merged_record(RECORD, taken._replace(device_names=[]))["device_name"] is None


def test_a_checkout_that_is_mounted_elsewhere_has_the_same_shards(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "problems.jsonl").write_text("{}")
    (tmp_path / "mounted").symlink_to(tmp_path / "disk")
    names = []
    for root in (tmp_path / "disk", tmp_path / "mounted"):
        with work_folder(root, "sample", {}, [root / "problems.jsonl"]) as folder:
            names.append(folder.name)
    assert names[0] == names[1]
