"""Which checkpoint a run goes on from, and which model folders are kept; and the windows of a course."""

from __future__ import annotations

import pytest

from stages._errors import UserError
from stages.core.mixing import Window
from stages.training.checkpoints import keep_served, last_step, mark_complete, remove_torn, require_fingerprint, served
from stages.training.course import Course


def checkpoint(folder, step, whole):
    (folder / f"checkpoint-{step}" / "optimizer_0").mkdir(parents=True)
    (folder / f"checkpoint-{step}" / "optimizer_0" / "part").write_text("state")
    if whole:
        (folder / f"checkpoint-{step}" / "whole").write_text(folder.name)


def steps(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def test_a_torn_checkpoint_is_not_gone_on_from(tmp_path):
    assert last_step(tmp_path) == 0
    for step, whole in ((16, True), (9, True), (32, False)):
        checkpoint(tmp_path, step, whole)
    assert last_step(tmp_path) == 16
    remove_torn(tmp_path, 16)
    assert steps(tmp_path) == [16]


def test_former_checkpoints_go_when_the_next_is_whole(tmp_path):
    checkpoint(tmp_path, 16, True)
    checkpoint(tmp_path, 128, False)
    mark_complete(tmp_path, 128)
    assert steps(tmp_path) == [128] and last_step(tmp_path) == 128
    require_fingerprint(tmp_path, 128)
    (tmp_path / "checkpoint-128" / "whole").write_text("0123")
    with pytest.raises(UserError, match=r"another run \(fingerprint 0123, not .*remove it and run again"):
        require_fingerprint(tmp_path, 128)


def test_only_models_that_may_be_selected_are_kept(tmp_path):
    for step in (16, 32, 48):
        served(tmp_path, step).mkdir()
    keep_served(tmp_path, {16, 48})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00016", "step-00048"]


def test_a_course_grows_by_decisions():
    course = Course(16, 32, [0.5])
    assert [course.undecided(step) for step in (0, 8, 16)] == [False, False, True]
    course.shares.append(0.75)
    assert [course.undecided(step) for step in (16, 24, 32)] == [False, False, True]
    assert course.windows == [Window(0, 0.5), Window(512, 0.75)]
    assert [course.share_at(step) for step in (0, 15, 16, 31)] == [0.5, 0.5, 0.75, 0.75]
