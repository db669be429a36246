"""Who is timed by `benchmarks.training`, each on the same examples: our trainer, a hand-written loop, TRL's own trainer.

A result is a dict: `tokens` (prompt and response, padding left out) and `seconds` from the end of the step `first` to the
end of the last one, and `loss`, the last that was logged. No files but what a trainer leaves in its folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from stages._params import Params
from stages.data.prompts import load_tokenizer
from stages.training.course import Course
from stages.training.examples import Batches, Example, Pair, micro_batches, row
from stages.training.session import prepare
from stages.training.trainer import MixtureTrainer, adapter, load_model, num_targets

ATTENTIONS = ("flash_attention_2", "flash_attention_3", "flex_attention")  # padding-free, in the order they are tried
IGNORED = -100


def ours(params: Params, model: Path, folder: Path, batches: Batches, course: Course, first: int) -> dict[str, Any]:
    """The stage's trainer with the stage's settings of torch (deterministic on a CPU), without the control loop."""
    prepare(params)
    found = _timed(MixtureTrainer(params, model, folder, batches, course), first)
    steps = range(first, params.train.max_steps)  # TRL's own count would take in the padding of rows without a mask
    found["tokens"] = sum(example.num_tokens for step in steps for _, example in batches.at(course.windows, step))
    return found


def trl(
    params: Params, model: Path, folder: Path, pairs: Sequence[Pair], first: int, padding_free: bool, recompute: bool
) -> dict[str, Any]:
    """TRL's trainer on `pairs` in its own random order, one epoch of whole batches; what is not named stays at TRL's defaults.

    The model, its data types and adapters are ours: TRL's own would load everything in float32.
    """
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    torch.set_num_threads(params.engine.threads)
    train = params.train
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=train.max_steps,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // train.micro_batch_size,
        learning_rate=train.lr,
        max_length=None,
        padding_free=padding_free,
        gradient_checkpointing=recompute,
        bf16=params.model.dtype == "bfloat16",
        use_cpu=params.container.device == "cpu",
        seed=params.seed,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    trainer = SFTTrainer(
        model=load_model(params, model),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([row(example) for _, example in pairs]),
        processing_class=load_tokenizer(model),
        peft_config=adapter(params),
    )
    return _timed(trainer, first)


class _Clock(TrainerCallback):
    """(seconds, tokens so far as TRL counts them) at the end of the step `first` and of the last one."""

    def __init__(self, trainer: Any, first: int) -> None:
        self._trainer, self._first = trainer, first
        self.marks: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in (self._first, args.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.marks.append((time.perf_counter(), self._trainer._total_train_tokens))


def _timed(trainer: Any, first: int) -> dict[str, Any]:
    clock = _Clock(trainer, first)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    (start, before), (end, after) = clock.marks
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"tokens": after - before, "seconds": end - start, "loss": losses[-1] if losses else None}


def minimal(params: Params, model_path: Path, pairs: Sequence[Pair], first: int) -> dict[str, Any]:
    """Plain torch on a CPU: micro-batches by length, cross-entropy on response tokens, clipping, fused AdamW, the warm-up.

    No attention mask: padding is on the right, where a causal model does not see it.
    """
    torch.set_num_threads(params.engine.threads)
    train = params.train
    model = load_model(params, model_path).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True)
    start, tokens, loss = 0.0, 0, 0.0
    for step in range(train.max_steps):
        if step == first:
            start, tokens = time.perf_counter(), 0
        batch = pairs[step * train.batch_size : (step + 1) * train.batch_size]
        number = num_targets(list(batch))
        examples = [example for _, example in batch]
        loss = 0.0
        for part in micro_batches(examples, train.micro_batch_size, 0, 1, padding_free=False):
            ids, labels = _padded(part)
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
            part_loss = torch.nn.functional.cross_entropy(
                logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )
            (part_loss / number).backward()
            loss += float(part_loss.detach()) / number
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
        optimizer.param_groups[0]["lr"] = train.lr * min(1.0, step / max(1, train.warmup_steps))
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(example.num_tokens for example in examples)
    return {"tokens": tokens, "seconds": time.perf_counter() - start, "loss": loss}


def _padded(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, (examples, longest)."""
    longest = max(example.num_tokens for example in examples)
    ids = torch.zeros((len(examples), longest), dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORED)
    for place, example in enumerate(examples):
        ids[place, : example.num_tokens] = torch.tensor([*example.prompt_ids, *example.token_ids])
        labels[place, len(example.prompt_ids) : example.num_tokens] = torch.tensor(example.token_ids)
    return ids, labels


def loadable_attention(device: str) -> str:
    """The first of `ATTENTIONS` that trains a small layer of the real head size here on a row of two examples, else sdpa."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    sizes = {"vocab_size": 64, "hidden_size": 256, "intermediate_size": 256}  # two heads of 128
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(**sizes, **heads, bos_token_id=1, eos_token_id=2)
    row_of_two = {"input_ids": torch.full((1, 256), 5), "position_ids": torch.arange(128).repeat(2)[None]}
    inputs = {name: value.to(device) for name, value in row_of_two.items()}
    for name in ATTENTIONS:
        try:
            model = AutoModelForCausalLM.from_config(config, attn_implementation=name, dtype=torch.bfloat16).to(device)
            model(**inputs, use_cache=False).logits.float().sum().backward()
        except Exception as error:  # noqa: BLE001 - whatever keeps it from running is the answer
            print(f"- {name} does not run here: {shorten(str(error), 160)}", flush=True)
            continue
        return name
    return "sdpa"


def utilisation(params: Params, model: Path, lengths: Sequence[int], tokens_per_second: float) -> float | None:
    """MFU in percent of the GPU's dense bfloat16 peak; None for a device whose peak TRL does not list.

    TRL's count of operations, with causal attention at the length of the sequence that a token stands in, and for LoRA
    without the gradients of frozen weights. Recomputed activations do not count as work.
    """
    from transformers import AutoConfig
    from trl.trainer.utils import compute_flops_per_token, compute_mfu, get_peak_flops

    if params.container.device == "cpu":
        return None
    peak = get_peak_flops(torch.cuda.get_device_name(), "bfloat16")
    if peak is None:
        return None
    config = AutoConfig.from_pretrained(str(model), local_files_only=True)
    mean_context = sum(length * length for length in lengths) // sum(lengths)
    linear = compute_flops_per_token(config, 0)
    attention = (compute_flops_per_token(config, mean_context) - linear) // 2
    if params.train.method == "lora":
        linear = linear * 2 // 3
    return float(compute_mfu(linear + attention, tokens_per_second, 1, peak))
