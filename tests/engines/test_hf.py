"""The transformers engine with real worker processes: sharding, reloading, dying workers, resumed logs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages._errors import StageFailed, UserError
from stages.data.problems import Problem
from stages.data.prompts import load_tokenizer
from stages.engines.base import DecodeSpec
from stages.engines.hf import HfEngine
from stages.engines.rollouts import draw, make_requests
from stages.tiny.chains import BOS, THINK, VOCABULARY
from tests.paths import ROOT
from tests.toy_model import save_random_model

pytestmark = pytest.mark.model
SPEC = DecodeSpec(temperature=1.0, top_p=1.0, max_tokens=24)
PROBLEMS = [Problem(f"p{i}", f"Q: {i % 11} a + {i % 7} ?", "0", None, None) for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model"))


def engine(folder, processes, batch_size=64):
    return HfEngine(folder, "float32", "cpu", processes=processes, threads=1, batch_size=batch_size, evict_every=4)


def test_prompts_hold_exactly_one_bos_and_open_the_thought(folder):
    """Golden ids: BOS, the prompt's words, `<think>`, and nothing else."""
    request = make_requests(load_tokenizer(folder), PROBLEMS[:1], 1)[0]
    words = [VOCABULARY[token] for token in request.prompt_ids]
    assert words == [BOS, "Q:", "0", "a", "+", "0", "?", THINK]


def test_words_the_model_does_not_know_are_refused(folder):
    with pytest.raises(UserError, match="does not know a word"):
        make_requests(load_tokenizer(folder), [Problem("x", "Solve x + 1", "0", None, None)], 1)


def test_one_and_two_processes_draw_the_same_answers(folder):
    wanted = make_requests(load_tokenizer(folder), PROBLEMS, 3)
    found = []
    for processes, batch_size in ((1, 64), (2, 16)):
        with engine(folder, processes, batch_size) as opened:
            found.append({(r.problem_id, r.sample_index): r for r in opened.generate(wanted, SPEC, 5)})
    assert len(found[0]) == 60
    same = sum(found[0][key] == found[1][key] for key in found[0])
    assert same >= 0.99 * 60


def test_samples_of_a_problem_differ_and_seeds_are_recorded(folder):
    with engine(folder, 1) as opened:
        wanted = make_requests(load_tokenizer(folder), PROBLEMS[:1], 8)
        responses = list(opened.generate(wanted, SPEC, 5))
    assert len({r.seed for r in responses}) == 8
    assert len({r.token_ids for r in responses}) > 1


def test_loading_other_weights_changes_the_answers(folder, tmp_path):
    other = save_random_model(tmp_path / "other", seed=1)
    wanted = make_requests(load_tokenizer(folder), PROBLEMS, 1)
    with engine(folder, 2) as opened:
        before = sorted(r.token_ids for r in opened.generate(wanted, SPEC, 5))
        opened.load(other)
        after = sorted(r.token_ids for r in opened.generate(wanted, SPEC, 5))
        opened.load(folder)
        assert sorted(r.token_ids for r in opened.generate(wanted, SPEC, 5)) == before
    assert before != after


def test_a_killed_worker_is_reported_in_one_sentence(folder):
    with engine(folder, 2) as opened, pytest.raises(StageFailed, match="killed, or out of memory"):
        os.kill(opened._pool._workers[0].pid, signal.SIGKILL)
        list(opened.generate(make_requests(load_tokenizer(folder), PROBLEMS, 1), SPEC, 5))


@pytest.mark.parametrize("busy", [False, True])
def test_an_interrupt_outside_the_with_block_leaves_no_worker_behind(folder, tmp_path, busy):
    """Python waits for processes that it started; a worker that nobody told to end would keep it for ever."""
    program = f"""
from pathlib import Path
from stages.engines.base import DecodeSpec, Request
from stages.engines.hf import HfEngine
if __name__ == "__main__":
    engine = HfEngine(Path({str(folder)!r}), "float32", "cpu", processes=2, threads=1, batch_size=8, evict_every=4)
    engine.__enter__()
    print(*(worker.pid for worker in engine._pool._workers), flush=True)
    if {busy}:
        list(engine.generate([Request("a", 0, (1, 5))], DecodeSpec(1.0, 1.0, 4), 1))
    raise KeyboardInterrupt
"""
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "KeyboardInterrupt" in done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_finished_answers_are_not_drawn_again(folder, tmp_path):
    """A log with some answers and a torn last line: only the missing ones are drawn, and the result is complete."""
    wanted = make_requests(load_tokenizer(folder), PROBLEMS, 2)
    log = tmp_path / "log.jsonl"
    with engine(folder, 1) as opened:
        whole = list(draw(opened, wanted, SPEC, 5, log, "test"))
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[:25]) + lines[25][:30])
        counting = _Counting(opened)
        assert list(draw(counting, wanted, SPEC, 5, log, "test")) == whole
        assert counting.num_drawn == len(wanted) - 25
        assert list(draw(counting, wanted, SPEC, 5, log, "test")) == whole
        assert counting.num_drawn == len(wanted) - 25
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((row["problem_id"], row["sample_index"], row["token_ids"]) for row in rows) == sorted(
        (r.problem_id, r.sample_index, list(r.token_ids)) for r in whole
    )


class _Counting:
    def __init__(self, inner):
        self.inner, self.num_drawn = inner, 0

    def generate(self, requests, spec, seed):
        self.num_drawn += len(requests)
        return self.inner.generate(requests, spec, seed)
