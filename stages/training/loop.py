"""The optimiser loop: full-parameter AdamW on response tokens, with checkpoints that resume bit for bit on CPU."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages._errors import StageFailed
from stages._io import read_json, whole_folder, write_json
from stages._params import Params
from stages.training.examples import Example, collate

LOSS_FILE = "window_loss.json"


class Trainer:
    """Model, optimiser and step counter. `folder` holds one checkpoint per control evaluation, `step-00016` and so on."""

    def __init__(self, params: Params, model_path: Path, folder: Path) -> None:
        import torch

        self._params, self._folder, self._base = params, folder, model_path
        torch.set_num_threads(params.engine.threads)
        torch.manual_seed(params.seed)
        torch.use_deterministic_algorithms(params.container.device == "cpu")
        self.step = max((step for step in self.checkpoints() if self._has_optimizer(step)), default=0)
        source = self.checkpoint(self.step) if self.step else model_path
        self._model = _trainable(source, params)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=params.train.lr, weight_decay=params.train.weight_decay, foreach=True
        )
        if self.step:
            self._optimizer.load_state_dict(torch.load(source / "optimizer.pt", weights_only=True))

    @property
    def model(self) -> Any:
        """The transformers model in training."""
        return self._model

    def checkpoint(self, step: int) -> Path:
        return self._folder / f"step-{step:05d}"

    def checkpoints(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(int(path.name.split("-")[1]) for path in self._folder.glob("step-*"))

    def _has_optimizer(self, step: int) -> bool:
        return (self.checkpoint(step) / "optimizer.pt").exists()

    def mean_loss(self, step: int) -> float:
        """Mean training loss (nats per response token) over the window that ended at `step`."""
        return float(read_json(self.checkpoint(step) / LOSS_FILE, "tldr run train")["mean_loss"])

    def train_step(self, batch: Sequence[Example]) -> float:
        """One optimiser step; returns the mean loss in nats per response token."""
        import torch

        settings = self._params.train
        num_targets = sum(len(example.token_ids) for example in batch)
        batch = sorted(batch, key=lambda example: example.num_tokens)  # micro-batches of like length pad little
        total = 0.0
        for start in range(0, len(batch), settings.micro_batch_size):
            total += self._backward(batch[start : start + settings.micro_batch_size], num_targets)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def _backward(self, batch: Sequence[Example], num_targets: int) -> float:
        from torch.nn.functional import cross_entropy

        tensors = {name: value.to(self._model.device) for name, value in collate(batch, self._pad_id()).items()}
        labels = tensors.pop("labels")
        logits = self._model(**tensors, use_cache=False).logits[:, :-1]
        targets = labels[:, 1:].reshape(-1)
        loss = cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets, reduction="sum") / num_targets
        loss.backward()
        return float(loss)

    def _pad_id(self) -> int:
        pad = self._model.config.pad_token_id
        return 0 if pad is None else int(pad)

    def save(self, mean_loss: float) -> Path:
        """Write the checkpoint of the current step and the mean loss that led to it; older optimiser states are dropped."""
        import torch

        target = self.checkpoint(self.step)
        with whole_folder(target) as folder:
            self._model.save_pretrained(folder)
            copy_tokenizer(self._base, folder)
            torch.save(self._optimizer.state_dict(), folder / "optimizer.pt")
            write_json(folder / LOSS_FILE, {"mean_loss": mean_loss})
        for step in self.checkpoints():
            if step != self.step:
                (self.checkpoint(step) / "optimizer.pt").unlink(missing_ok=True)
        return target


def _trainable(path: Path, params: Params) -> Any:
    from stages.engines.hf import load_model

    return load_model(str(path), params.model.dtype, params.container.device).train()


def publish(checkpoint: Path, target: Path, dtype: str, weights: str) -> None:
    """Copy the model files of a checkpoint to the folder `target`; StageFailed, and no folder, unless the digest of the
    copied weights is `weights`, that of the weights whose control score had the checkpoint chosen."""
    from stages.engines.weights import checkpoint_hashes, weights_digest

    with whole_folder(target) as folder:
        for file in sorted(checkpoint.iterdir()):
            if file.name not in ("optimizer.pt", LOSS_FILE):
                shutil.copyfile(file, folder / file.name)
        if weights_digest(checkpoint_hashes(folder, dtype)) != weights:
            raise StageFailed(
                f"{checkpoint} does not hold the weights that answered the control set, so it was changed afterwards; "
                f"remove {checkpoint.parent} and run `tldr run train` again."
            )


def copy_tokenizer(model_path: Path, folder: Path) -> None:
    """Carry every small file of the base model folder over (tokenizer, template, licence), byte for byte."""
    for file in sorted(model_path.iterdir()):
        kept = file.suffix in {".json", ".jinja", ".model", ".txt", ".md"} and not (folder / file.name).exists()
        if file.is_file() and kept and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
