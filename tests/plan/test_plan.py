"""`tldr plan`: sizes against the library's own count, memory and hours against hand calculation, and what does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stages.__main__ import main
from stages._errors import UserError
from stages._params import Params, read_yaml
from stages.cli._overrides import with_overrides
from stages.cli.plan import rerun
from stages.cli.profile import overlay_pairs
from stages.data.sources import read_sources
from stages.plan.memory import GIB, Need, advice, serving, training
from stages.plan.shapes import PUBLISHED, Shape, shape_of
from stages.plan.speed import GPUS, decoding, training_seconds
from stages.plan.stages_of import make_plan, require_memory
from stages.plan.workload import workload
from tests.paths import ROOT

SEVEN = PUBLISHED["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]
H100 = GPUS["h100"]
SOURCES = read_sources(ROOT)


def parameters(profile: str = "r1-7b", *pairs: str) -> Params:
    return with_overrides(read_yaml(ROOT / "params.yaml"), [*overlay_pairs(ROOT, profile), *pairs])


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout into which nothing has been fetched."""
    for name in (
        "params.yaml",
        "dvc.yaml",
        "profiles",
        "tasks",
        "docs",
        "results",
        "containers",
        "data/tiny",
        "data/sources.yaml",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.model
@pytest.mark.parametrize("repo", PUBLISHED)
def test_published_sizes_give_the_number_that_transformers_counts(repo: str) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = PUBLISHED[repo]
    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert shape.num_parameters == pytest.approx(counted, rel=1e-3)
    assert shape_of(config.to_dict(), "toy") == shape


def test_the_count_of_adapters_is_that_of_their_matrices() -> None:
    toy = Shape(100, 8, 20, 3, 2, 1, 4, tied=True)
    ends = [(8, 8), (8, 4), (8, 4), (8, 8), (8, 20), (8, 20), (20, 8)]
    assert toy.adapter_parameters(16) == 3 * 16 * sum(one + other for one, other in ends)
    assert toy.num_parameters == 100 * 8 + 3 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 20)


def test_memory_of_the_7b_profile_by_hand() -> None:
    """28 layers, 3,584 wide, 4 key-value heads of 128: 56 KiB of cache per token in bfloat16."""
    params = parameters()
    assert SEVEN.cache_bytes(2) == 2 * 28 * 4 * 128 * 2 == 57344
    need = serving(SEVEN, params, 80.0, 7000.0)
    assert need.weights == pytest.approx(7.615e9 * 2 / GIB, rel=1e-3)
    assert need.cache == pytest.approx(0.4 * 80 - need.weights - 2.0)
    assert need.answers == int(need.cache * GIB / (7000 * 57344))
    trained = training(SEVEN, params, 80.0, 7000.0)
    assert trained.states == pytest.approx(7.615e9 * 16 / 8 / GIB, rel=1e-3)
    assert trained.engine == 32.0
    layer = 16384 * (18 * 3584 + 6 * 18944)
    assert trained.activations == pytest.approx((28 * 16384 * 3584 * 2 + layer) / GIB)
    assert trained.total == pytest.approx(sum((trained.weights, trained.states, trained.activations, 32.0, 3.0)))
    lora = training(SEVEN, parameters("r1-7b", "train.method=lora"), 80.0, 7000.0)
    assert lora.states == pytest.approx(SEVEN.adapter_parameters(16) * 16 / 8 / GIB) and lora.weights > trained.weights


def test_hours_of_the_7b_profile_by_hand() -> None:
    params = parameters()
    need = replace(serving(SEVEN, params, 80.0, 7000.0), answers=30)
    step = (SEVEN.num_parameters * 2 + 30 * 3500 * 57344) / (3.35e12 * 0.6)
    assert decoding(SEVEN, params, H100, need, 7000.0) == pytest.approx(30 / step)
    assert decoding(SEVEN, params, H100, replace(need, answers=0), 7000.0) == 0.0
    seconds = training_seconds(SEVEN, params, H100, 1e6, 2000.0)
    operations = 1e6 * 8 * (SEVEN.num_parameters + 28 * 3584 * 2000)
    assert seconds == pytest.approx(operations / (989e12 * 0.35 * 8))


@pytest.mark.parametrize(
    ("profile", "pairs", "gib", "said"),
    [
        ("r1-7b", (), 80.0, None),
        ("r1-7b", ("train.micro_batch_size=4",), 80.0, None),
        (
            "r1-7b",
            ("engine.vllm.gpu_memory_utilization=0.8",),
            80.0,
            "lower engine.vllm.gpu_memory_utilization to 0.7",
        ),
        (
            "r1-7b",
            ("train.micro_batch_size=4", "train.gradient_checkpointing=false"),
            80.0,
            "set train.gradient_checkpointing",
        ),
        ("r1-1.5b", ("train.micro_batch_size=32",), 80.0, "lower train.micro_batch_size or train.max_length"),
        ("r1-7b", ("train.launch.kind=ddp", "train.method=full"), 80.0, "set train.launch.kind to fsdp2"),
        (
            "r1-14b",
            ("train.launch.num_processes=2",),
            80.0,
            "raise train.launch.num_processes, or set train.method to lora",
        ),
    ],
)
def test_a_trainer_that_does_not_fit_is_told_what_to_change(
    profile: str, pairs: tuple[str, ...], gib: float, said: str | None
) -> None:
    params = parameters(profile, *pairs)
    shape = PUBLISHED[params.fetch.model.repo]  # type: ignore[union-attr]
    found = advice(training(shape, params, gib, 7000.0), params, gib)
    assert found is None if said is None else found is not None and found.startswith(said), found


@pytest.mark.parametrize(
    ("pairs", "gib", "said"),
    [
        ((), 80.0, None),
        ((), 40.0, "raise engine.vllm.gpu_memory_utilization to at least 0.4"),
        (("decode.max_tokens=2000000",), 80.0, "raise engine.vllm.tensor_parallel_size, or lower decode.max_tokens"),
        (("engine.vllm.kv_cache_gb=100.0",), 80.0, "raise engine.vllm.tensor_parallel_size"),
        (("engine.name=hf", "engine.batch_size=256"), 80.0, "lower engine.batch_size"),
    ],
)
def test_an_engine_that_does_not_fit_is_told_what_to_change(
    pairs: tuple[str, ...], gib: float, said: str | None
) -> None:
    params = parameters("r1-7b", *pairs)
    found = advice(serving(SEVEN, params, gib, 7000.0), params, gib)
    assert found is None if said is None else found is not None and found.startswith(said), found


def test_what_follows_the_advice_fits() -> None:
    params = parameters("r1-7b", "engine.vllm.gpu_memory_utilization=0.8")
    found = advice(training(SEVEN, params, 80.0, 7000.0), params, 80.0)
    assert found is not None
    params = parameters("r1-7b", f"engine.vllm.gpu_memory_utilization={found.rpartition(' ')[2]}")
    assert advice(training(SEVEN, params, 80.0, 7000.0), params, 80.0) is None
    found = advice(serving(SEVEN, parameters(), 40.0, 7000.0), parameters(), 40.0)
    assert found is not None
    params = parameters("r1-7b", f"engine.vllm.gpu_memory_utilization={float(found.rpartition(' ')[2]):.2f}")
    assert advice(serving(SEVEN, params, 40.0, 7000.0), params, 40.0) is None


def test_answers_are_counted_from_files_published_numbers_and_cells(bare: Path) -> None:
    load = workload(bare, parameters(), SOURCES)
    assert (load.system1.number, load.system1.mean_tokens) == (7473 * 4, 554.0), "the cell of GSM8K, original 7B"
    assert load.control.number == 919 * 4 and load.num_updates == 512 // 64
    assert (load.each_control.number, load.whole_control.number) == (32 * 3, 3 * 919 * 3), "parts, then three at most"
    assert load.generated["train"] == pytest.approx((8 * 96 + 9 * 919) * load.control.mean_tokens)
    published = workload(bare, parameters("paper-7b"), SOURCES)
    assert (published.each_control.number, published.whole_control.number) == (919, 0), "every update asks all"
    questions = 1319 + 500 + 30 + 30 + 40 + 272 + 2305
    assert load.test.number == questions * 8
    cells = 1319 * 554 + 500 * 2861 + 60 * 6820 + 40 * 4510 + 272 * 3347 + 2305 * 769
    assert load.test.mean_tokens == pytest.approx(cells / questions)
    assert load.num_examples == 512 * 32 and not load.test.measured
    short = workload(bare, parameters("r1-7b", "decode.max_tokens=1000"), SOURCES)
    assert short.system2.mean_tokens == 1000.0, "no answer is longer than the limit"


def test_the_tiny_profile_is_planned_from_what_it_measured() -> None:
    load = workload(ROOT, with_overrides(read_yaml(ROOT / "params.yaml"), []), SOURCES)
    sample = json.loads((ROOT / "results" / "sample.json").read_text())
    assert load.system2.measured and load.system2.mean_tokens == sample["system2"]["mean_tokens"]
    assert load.generated["sample"] == pytest.approx(
        sum(sample[name]["num_responses"] * sample[name]["mean_tokens"] for name in ("system1", "system2", "control"))
    )
    assert load.short.number == 0 and load.test.number == 4000


def test_a_changed_key_concerns_the_stages_that_read_it() -> None:
    assert rerun(ROOT, "train", ["train.lr", "evaluate.samples"]) == ["train.lr"]
    assert rerun(ROOT, "sample", ["ratio.bound_samples", "ratio.init"]) == ["ratio.bound_samples"]
    assert rerun(ROOT, "evaluate", ["fetch.model"]) == []


def plan(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["plan", *arguments], env={"COLUMNS": "200"})


def test_the_command_prints_every_stage_and_refuses_what_does_not_fit(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bare)
    answer = plan("--profile", "r1-7b")
    assert answer.exit_code == 0, answer.output
    for stage in ("sample", "label-by-length", "ratio-schedule", "train", "evaluate@base", "evaluate@candidate"):
        assert f"\n{stage} " in answer.stdout
    assert "models/r1-7b 15.2 GB; models/qwen2.5-7b-instruct 15.2 GB" in answer.stdout
    found = json.loads(plan("--profile", "r1-7b", "--json").stdout)
    assert found["fits"] and sum(stage["gpu_hours"] for stage in found["stages"]) == pytest.approx(found["gpu_hours"])
    assert f"about {found['gpu_hours']:,.0f} GPU-hours" in answer.stdout
    refused = plan("--profile", "r1-14b", "--gpu", "l40s")
    assert refused.exit_code == 1 and "does not fit: " in refused.stdout
    assert plan("--profile", "r1-70b").exit_code == 2
    unknown = plan()
    assert unknown.exit_code == 2 and "models/tiny does not exist" in unknown.stderr
    (bare / "models").symlink_to(ROOT / "models")
    cpu = plan()
    assert cpu.exit_code == 0 and "CPU: memory and hours are not planned" in cpu.stdout


def test_a_stage_that_cannot_fit_is_refused_before_it_starts(tmp_path: Path) -> None:
    params = parameters()
    root = tmp_path / "bare"
    require_memory(root, params, "train", 80.0)
    require_memory(root, params, "label-by-length", 1.0)
    for stage in ("sample", "train", "ratio-schedule", "evaluate@candidate"):
        with pytest.raises(
            UserError, match=rf"{stage} needs about \d+ GiB of GPU memory and this GPU has 24: .* \(`tldr plan`"
        ):
            require_memory(root, params, stage, 24.0)
    short = "ratio.short_bound={source: self, path: null, accuracy_tolerance: 0.03}"
    self_bound = parameters("r1-7b", short, "fetch.short_model=null")
    require_memory(root, self_bound, "ratio-schedule", 1.0)
    unknown = parameters("r1-7b", "model.path=models/mine", "fetch.model=null")
    with pytest.raises(UserError, match="the sizes of its model are not known without it; run `tldr fetch`"):
        make_plan(root, unknown, SOURCES, H100)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    shutil.copy(ROOT / "models" / "tiny" / "config.json", tmp_path / "models" / "mine")
    require_memory(tmp_path, unknown, "sample", 80.0)
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json does not give the sizes of the model \('num_attention_heads'\)"):
        require_memory(tmp_path, unknown, "sample", 80.0)


def test_needs_add_up() -> None:
    assert Need(1.0, 2.0, 3.0, 4.0, 5.0, 6.0).total == 21.0


def test_the_readme_says_what_the_plan_says(bare: Path) -> None:
    text = (ROOT / "README.md").read_text().partition("## Reproduce the paper")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    assert [row[0] for row in rows] == [f"`{name}`" for name in ("r1-1.5b", "r1-7b", "r1-14b", "paper-7b", "paper-14b")]
    for name, gpus, hours, steering, choice, fetched, disk in rows:
        plan = make_plan(bare, parameters(name.strip("`")), SOURCES, H100)
        assert plan.control_share is not None
        assert plan.steering_share is not None
        said = [max(stage.gpus for stage in plan.stages), f"{plan.gpu_hours:.0f}"]
        said += [f"{100 * share:.0f} %" for share in (plan.steering_share, plan.control_share - plan.steering_share)]
        assert [int(gpus), hours, steering, choice] == said, name
        assert [fetched, disk] == [f"{sum(plan.downloads.values()):.0f}", f"{plan.disk:.0f}"], name
