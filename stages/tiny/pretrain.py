"""Pre-training of the tiny reasoner: reads nothing but a recipe and a seed, writes a Hugging Face model folder.

The traces come from `stages.tiny.chains`. Early in training the steps are made wrong far more often than in the final
task, because a disagreeing check is otherwise so rare that the model never learns to act on one; the surplus is
annealed away, so that the model ends calibrated to the real error rates.

Run: `tldr tiny build`.
"""

from __future__ import annotations

import contextlib
import math
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from stages._param_blocks import TinyParams
from stages.tiny.chains import (
    BOS,
    EOS,
    MAX_CHECKS,
    MAX_LENGTH,
    PAD,
    STEP_ERROR,
    THINK,
    VOCABULARY,
    prompt_text,
    random_chain,
    write_response,
)
from stages.tiny.export import exported

WORD_IDS = {word: index for index, word in enumerate(VOCABULARY)}
SNAPSHOT_STEPS = 1000  # a look at a running build; the last one is the model
POOL_SEQUENCES = 1024  # sorted by length before batching, so that a batch wastes little padding


def build_model(recipe: TinyParams) -> Any:
    """A fresh Qwen2 causal language model (float32, tied embeddings) with weights drawn from `recipe.seed`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=WORD_IDS[BOS],
        eos_token_id=WORD_IDS[EOS],
        pad_token_id=WORD_IDS[PAD],
        initializer_range=0.05,
        use_cache=True,
    )
    return Qwen2ForCausalLM(config)


def step_errors(progress: float, recipe: TinyParams) -> tuple[float, ...]:
    """Per-step error rates at `progress` in [0, 1]: a surplus that falls linearly to the task's own rates."""
    surplus = recipe.surplus_error * max(0.0, 1.0 - progress / recipe.surplus_until)
    return tuple(max(error, surplus) for error in STEP_ERROR)


def training_sequence(progress: float, recipe: TinyParams, rng: Random) -> tuple[list[int], int]:
    """Token ids of prompt and response with EOS, and the number of prompt tokens (which carry no loss)."""
    chain = random_chain(rng.randint(1, MAX_LENGTH), rng)
    num_checks = rng.randint(0, 2 if progress < recipe.few_checks_until else MAX_CHECKS)
    words, _ = write_response(chain, num_checks, rng, step_errors(progress, recipe))
    prompt = [BOS, *prompt_text(chain).split(), THINK]
    return [WORD_IDS[word] for word in [*prompt, *words, EOS]], len(prompt)


def batches(recipe: TinyParams, rank: int) -> Iterator[tuple[Any, Any]]:
    """Endless (ids, labels) int64 arrays of shape (rows, columns) for one process; labels are -100 where no loss is due."""
    import torch

    rng = Random(f"tiny-pretrain/{recipe.seed}/{rank}")
    budget = recipe.tokens_per_step // recipe.num_processes
    step = 0
    while True:
        progress = step / recipe.num_steps
        pool = sorted(
            (training_sequence(progress, recipe, rng) for _ in range(POOL_SEQUENCES)), key=lambda s: len(s[0])
        )
        groups: list[list[tuple[list[int], int]]] = [[]]
        for sequence in pool:
            if len(sequence[0]) * (len(groups[-1]) + 1) > budget:
                groups.append([])
            groups[-1].append(sequence)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.full((len(group), width), WORD_IDS[PAD])
            labels = torch.full((len(group), width), -100)
            for row, (tokens, num_prompt) in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, num_prompt : len(tokens)] = torch.tensor(tokens[num_prompt:])
            yield ids, labels
            step += 1


def learning_rate(step: int, recipe: TinyParams) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.num_steps - recipe.warmup_steps)
    return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * share))


def pretrain(recipe: TinyParams, folder: Path, on_step: Callable[[int, float], None]) -> None:
    """Train from scratch and write the model files (no tokenizer) to `folder`; `on_step(step, loss)` after each step."""
    from torch import multiprocessing as processes

    context = processes.get_context("spawn")
    progress = context.Queue()
    arguments = (recipe, str(folder), progress)
    running = processes.start_processes(  # type: ignore[attr-defined]
        _train_process, arguments, nprocs=recipe.num_processes, join=False, start_method="spawn"
    )
    while not running.join(timeout=0.0):
        with contextlib.suppress(queue.Empty):
            on_step(*progress.get(timeout=1.0))


def _train_process(rank: int, recipe: TinyParams, folder: str, progress: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/.rendezvous", rank=rank, world_size=recipe.num_processes
    )
    model = build_model(recipe).train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), foreach=True)
    stream = batches(recipe, rank)
    for step in range(recipe.num_steps):
        loss = _optimise(model, optimizer, matrices + vectors, next(stream), learning_rate(step, recipe))
        if rank == 0:
            progress.put((step, loss))
            if step % SNAPSHOT_STEPS == SNAPSHOT_STEPS - 1 or step == recipe.num_steps - 1:
                exported(model).save_pretrained(folder)
    dist.destroy_process_group()


def _optimise(model: Any, optimizer: Any, parameters: list[Any], batch: tuple[Any, Any], lr: float) -> float:
    """One step on the token mean over all processes; returns that mean loss (nats per response token)."""
    import torch
    import torch.distributed as dist
    from torch.nn.functional import cross_entropy

    ids, labels = batch
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    targets = labels[:, 1:].reshape(-1)
    count = torch.tensor([float((targets != -100).sum())])
    loss_sum = cross_entropy(logits.reshape(-1, logits.shape[-1]), targets, ignore_index=-100, reduction="sum")
    loss_sum.backward()
    flat = torch.cat([*(p.grad.reshape(-1) for p in parameters), loss_sum.detach().reshape(1), count])
    dist.all_reduce(flat)
    flat /= flat[-1].clone()
    offset = 0
    for p in parameters:
        p.grad = flat[offset : offset + p.numel()].view_as(p)
        offset += p.numel()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(flat[-2])
