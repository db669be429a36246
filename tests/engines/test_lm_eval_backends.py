"""The backends `tldr-hf` and `tldr-vllm` under lm-eval's own `simple_evaluate`, as someone outside this project calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from stages._errors import UserError
from stages._params import read_yaml
from stages.engines.lm_eval_model import EngineLM, GeneratedText, HfLM, VllmLM
from tests.paths import ROOT
from tests.toy_model import save_random_model

MAX_TOKENS, REPEATS = 8, 2
TASK = """
task: chains
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/questions.jsonl}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
repeats: {repeats}
generation_kwargs: {{until: ["x"], max_gen_toks: 3}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A params.yaml with a model of random weights beside it, and a task."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    save_random_model(tmp_path / "model")
    document = read_yaml(ROOT / "params.yaml")
    document["model"]["path"] = "model"
    document["decode"]["max_tokens"] = MAX_TOKENS
    document["evaluate"]["budgets"] = [MAX_TOKENS]
    document["engine"] |= {"processes": 1, "name": "vllm"}
    (tmp_path / "params.yaml").write_text(json.dumps(document))
    (tmp_path / "questions.jsonl").write_text('{"q": "Q: 1 a + 1 ?", "a": "2"}\n{"q": "Q: 3 a * 2 ?", "a": "6"}\n')
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "chains.yaml").write_text(TASK.format(folder=tmp_path, repeats=REPEATS))
    return tmp_path


def run(root: Path, model_args: Any) -> Any:
    manager = TaskManager(include_path=str(root / "tasks"), include_defaults=False)
    return simple_evaluate("tldr-hf", model_args, tasks=["chains"], task_manager=manager, bootstrap_iters=0)


@pytest.mark.model
def test_simple_evaluate_draws_as_params_yaml_says_and_remembers(root: Path) -> None:
    """The engine of the name counts, not engine.name; the second call finds every answer in the store."""
    first = run(root, f"pretrained={root}/model,params={root}/params.yaml")
    answers = [answer for sample in first["samples"]["chains"] for answer in sample["resps"][0]]
    assert len(answers) == 2 * REPEATS
    assert all(isinstance(answer, GeneratedText) for answer in answers)
    assert all(answer.num_tokens == MAX_TOKENS or answer.finish_reason == "stop" for answer in answers)
    assert all(answer == "" for answer in answers if answer.finish_reason == "length")
    assert len({answer.seed for answer in answers}) == len(answers)
    assert any(answer.num_tokens > 3 for answer in answers), "the task's own limit is 3"
    (store,) = (root / ".tldr" / "evaluations").glob("*/responses/*.jsonl")
    drawn = store.read_bytes()
    again = run(root, {"params": str(root / "params.yaml")})
    repeated = [answer for sample in again["samples"]["chains"] for answer in sample["resps"][0]]
    assert [answer.token_ids for answer in repeated] == [answer.token_ids for answer in answers]
    assert store.read_bytes() == drawn


def test_both_names_are_registered_models_of_lm_eval() -> None:
    assert get_model("tldr-hf") is HfLM
    assert get_model("tldr-vllm") is VllmLM
    assert issubclass(VllmLM, EngineLM)
    assert issubclass(EngineLM, LM)


def test_what_a_backend_does_not_know_is_one_sentence(root: Path) -> None:
    with pytest.raises(
        UserError, match="tldr-hf does not know dtype, trust_remote_code; it takes pretrained and params"
    ):
        run(root, "dtype=float32,trust_remote_code=true")
    with pytest.raises(UserError, match=r"nosuch.yaml does not exist"):
        run(root, "params=nosuch.yaml")
    with pytest.raises(UserError, match=r"nosuch does not exist; set model\.path"):
        run(root, {"pretrained": str(root / "nosuch"), "params": str(root / "params.yaml")})


def test_a_second_chat_template_is_refused(root: Path) -> None:
    model = HfLM(params=str(root / "params.yaml"))
    manager = TaskManager(include_path=str(root / "tasks"), include_defaults=False)
    with pytest.raises(UserError, match="leave apply_chat_template out"):
        simple_evaluate(model, tasks=["chains"], task_manager=manager, apply_chat_template=True)
