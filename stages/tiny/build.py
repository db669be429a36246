"""Rebuild the shipped reasoner and its problem sets from the `tiny` block of params.yaml.

Reads params.yaml; writes a model folder (config, safetensors, tokenizer) and four problem files. Run: `tldr tiny build`.
The same machine and library versions give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from stages._io import whole_folder, write_jsonl
from stages._param_blocks import TinyParams
from stages.tiny.pretrain import pretrain
from stages.tiny.problems import problem_sets
from stages.tiny.tokenizer import build_tokenizer


def build(recipe: TinyParams, model_folder: Path, data_folder: Path) -> None:
    """Write both folders, whole or not at all; a progress bar shows loss and remaining time (about 50 minutes on 2 cores)."""
    write_problems(recipe, data_folder)
    with whole_folder(model_folder) as folder:
        _pretrain_with_progress(recipe, folder)
        write_tokenizer(folder)


def write_problems(recipe: TinyParams, data_folder: Path) -> None:
    for name, rows in problem_sets(recipe).items():
        write_jsonl(data_folder / f"{name}.jsonl", rows)


def write_tokenizer(folder: Path) -> None:
    build_tokenizer().save_pretrained(str(folder))


def _pretrain_with_progress(recipe: TinyParams, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("pre-training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=recipe.num_steps, loss="")

        def on_step(step: int, loss: float) -> None:
            progress.update(task, completed=step + 1, loss=f"loss {loss:.4f}")

        pretrain(recipe, folder, on_step)
