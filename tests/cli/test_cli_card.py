"""`tldr card`: what the hub's own library reads from it, what the text says, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from stages.__main__ import main
from stages.cli.report import build_report
from tests.paths import ROOT

HEADER = "task,group,question_id,sample_index,correct,num_tokens,truncated,no_think\n"
HOSTILE = '---\nlicense: mit\n---\n: "x" | {y} # ☃ [z]'


def write_results(
    root: Path,
    *,
    groups: tuple[str, str] = ("one", "two"),
    tasks: tuple[str, str] = ("tiny", "tiny"),
    fallback: int = 0,
) -> None:
    """Two models, 40 questions; the second is as accurate and writes 40 tokens instead of 100."""
    (root / "results" / "questions").mkdir(parents=True, exist_ok=True)
    for name, tokens in (("base", 100), ("candidate", 40)):
        quoted = [f'"{group.replace(chr(34), chr(34) * 2)}"' for group in groups]
        rows = [f"{tasks[q % 2]},{quoted[q % 2]},q{q},0,{int(q % 8 != 0)},{tokens + q % 5},0,0\n" for q in range(40)]
        (root / "results" / "questions" / f"{name}.csv").write_text(HEADER + "".join(rows))
    place = {"engine": "toy 1", "container_engine": "host", "container_device": "cpu", "container_image": None}
    train = {"selected_step": 32, "selection_fallback": fallback, "num_eligible": 3} | place
    for name, result in (("train", train), ("base", place), ("metrics", place)):
        (root / "results" / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def results(checkout: Path) -> Path:
    write_results(checkout)
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("resamples: 10000", "resamples: 1000"))
    return checkout


def card(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["card", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["card", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    return result.stderr


def metrics(text: str) -> dict[tuple[str, str], object]:
    _, found = model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])
    return {(result.dataset_name, result.metric_type): result for result in found}


def test_the_hub_reads_every_figure_of_the_report_with_its_interval(results: Path) -> None:
    found, report = metrics(card()), build_report(results)
    rows = {"tiny, one": "one", "tiny, two": "two"}
    for title, row in rows.items():
        assert found[title, "accuracy"].metric_value == report["candidate"]["tasks"][row]["accuracy"]
        saved = report["tasks"][row]["token_reduction"]
        lower, upper = saved["ci"]
        assert found[title, "token_reduction"].metric_value == saved["micro"]
        assert found[title, "token_reduction"].metric_args == {"confidence": 0.95, "lower": lower, "upper": upper}
    whole = found["tiny, all questions", "accuracy_difference"]
    assert whole.metric_args["verdict"] == report["verdict"] == "INCONCLUSIVE"
    assert [whole.metric_args["lower"], whole.metric_args["upper"]] == report["accuracy_difference"]["ci"]
    assert whole.dataset_args == {"num_questions": 40, "num_answers": 40}
    assert len(found) == 15 and not any(result.verified for result in found.values())


def test_benchmarks_stay_apart_in_the_model_index(results: Path) -> None:
    write_results(results, tasks=("tiny", "other"))
    path = results / "params.yaml"
    path.write_text(path.read_text().replace("  - tiny\n", "  - tiny\n  - tasks/other.yaml\n"))
    kinds = {title: result.dataset_type for (title, _), result in metrics(card()).items()}
    assert kinds == {"tiny": "tiny", "other": "other", "all questions": "tiny+other"}


def test_a_file_is_read_back_by_the_hub_library_without_a_network(results: Path) -> None:
    arguments = ("--model-id", "me/short", "--base-model", "them/long", "--license", "apache-2.0")
    assert card(*arguments, "--out", "new/README.md") == "Wrote new/README.md.\n"
    text = (results / "new" / "README.md").read_text()
    assert text == card(*arguments)
    data = ModelCard.load(results / "new" / "README.md").data
    assert (data.model_name, data.base_model, data.license) == ("me/short", "them/long", "apache-2.0")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert "vllm serve me/short" in text and "`them/long`, fine-tuned" in text


def test_what_is_not_known_is_left_out_or_called_unknown(results: Path) -> None:
    text = card()
    data = ModelCard(text).data.to_dict()
    assert "license" not in data and "base_model" not in data
    assert "License: not stated" in text and "There is no `dvc.lock`" in text
    assert "Digest of the weights" not in text and "short correct answers" not in text


def test_the_base_model_is_the_one_that_params_yaml_pins(results: Path) -> None:
    path = results / "params.yaml"
    pin = f"{{repo: them/pinned, revision: {'a' * 40}}}"
    path.write_text(path.read_text().replace("  model:                      # {repo", f"  model: {pin}  # {{repo"))
    text = card()
    assert ModelCard(text).data.base_model == "them/pinned"
    assert f"`them/pinned` (revision `{'a' * 40}`), fine-tuned" in text
    assert "revision" not in card("--base-model", "them/other").partition("## Result")[0]


def test_the_text_says_how_it_was_made_and_what_was_not_shown(results: Path) -> None:
    text = card()
    assert "**INCONCLUSIVE: this model was not shown to keep its accuracy**" in text
    for said in (
        "| one |",
        "text generated by toy 1",
        "temperature 1, top_p 1, at most 640 tokens",
        "the checkpoint of step 32: fewest control tokens",
        "container engine host, device cpu, image none",
        "seed 1",
        "one training run",
        "two-sided 95 % intervals",
        "https://arxiv.org/abs/2506.02678",
    ):
        assert said in text
    assert "selection fallback" not in text
    record = results / "results" / "train.json"
    part = json.loads(record.read_text()) | {"scored": {"step-00032": {}, "step-00048": {}}}
    record.write_text(json.dumps(part))
    assert "the first that had a loss above 1 point excluded" in card()
    assert "(2 answered all of it, those first that looked shortest on a part)" in card()
    record.write_text(json.dumps(part | {"selection_fallback": 1}))
    assert "step 32: none had a loss above 1 point" in card() and "; the most accurate (2 answered" in card()
    write_results(results, fallback=1)
    assert "WARNING: no checkpoint was shown" in card()
    assert "none had a loss above 1 point excluded" in card()
    assert "**no checkpoint was shown to keep its accuracy on the control set (selection fallback)**" in card()


def test_hostile_labels_stay_values(results: Path) -> None:
    write_results(results, groups=(HOSTILE, "null"))
    text = card()
    data = ModelCard(text).data.to_dict()
    assert "license" not in data
    configs = [result["dataset"]["config"] for result in data["model-index"][0]["results"]]
    assert set(configs) == {HOSTILE, "null", "all questions"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model-id", "a/b/c"), "--model-id 'a/b/c' is no name on the hub; write OWNER/NAME."),
        (("--base-model", "x y"), "--base-model 'x y' is no name on the hub"),
        (("--license", "MIT: yes"), "--license 'MIT: yes' is not written as on the hub"),
        (("--out", "params.yaml/README.md"), "params.yaml is not a folder; give --out another path."),
    ],
)
def test_names_that_the_hub_would_refuse_are_refused(results: Path, arguments: tuple[str, str], sentence: str) -> None:
    assert sentence in refused(*arguments)


def test_missing_results_name_the_next_step(results: Path) -> None:
    (results / "results" / "questions" / "candidate.csv").unlink()
    assert "results/questions/candidate.csv not found; run `tldr repro`" in refused()


def test_results_of_two_runs_make_no_card(results: Path) -> None:
    train = results / "results" / "train.json"
    digest = hashlib.md5(train.read_bytes()).hexdigest()
    lock = f"stages:\n  train:\n    outs:\n    - path: results/train.json\n      md5: {digest}\n"
    (results / "dvc.lock").write_text(lock)
    assert f"| `results/train.json` | {digest} |" in card()
    train.write_text(train.read_text().replace("32", "48"))
    assert "results/train.json is not the file that dvc.lock records; run `tldr repro`" in refused()


def test_the_committed_results_make_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found, measured = metrics(card()), json.loads((ROOT / "results" / "metrics.json").read_text())
    assert found["tiny, all questions", "accuracy"].metric_value == measured["candidate_accuracy"]
    assert found["tiny, all questions", "token_reduction"].metric_value == measured["token_reduction"]


def test_the_settings_of_the_controller_that_moved_the_ratio(results: Path) -> None:
    assert "`robust` controller on a frozen control set (eta 4, smoothing 0.0001, floor 0.1)" in card()
    path = results / "params.yaml"
    path.write_text(path.read_text().replace("controller: robust", "controller: lagrangian"))
    assert "(margin 0.005, dual step 0.5, dead zone 0.5, floor 0.1)" in " ".join(card().split())
