"""TRL's SFTTrainer on the mixture: our order of examples, whole checkpoints, and the weights as they are served.

Imported inside functions only: torch, transformers and TRL take seconds. Sources: trl 1.16.0 `SFTTrainer` (loss on response
tokens through its chunked output layer, padding-free collator), transformers 5.17.0 `Trainer` (loop, checkpoints, resume).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from stages._errors import StageFailed
from stages._params import Params
from stages.data.prompts import load_tokenizer
from stages.training.checkpoints import last_step, mark_complete, require_fingerprint
from stages.training.course import Course
from stages.training.examples import Batches, Example, micro_batches, row

WAIT_SECONDS = 7 * 24 * 3600  # how long a process waits for another; a control evaluation may take hours
MASTER_DTYPE = torch.float32  # of trained weights: in bfloat16 updates of a small learning rate would round to nothing


class MixtureTrainer(SFTTrainer):
    """The batch of a step comes from `batches` and the windows of `course`, whatever the data loader holds.

    A data loader reads ahead, so that a new ratio would take effect late, and a resumed run would need its state.
    """

    def __init__(self, params: Params, model_path: Path, folder: Path, batches: Batches, course: Course) -> None:
        self._settings, self._batches, self._course = params, batches, course
        arguments = sft_config(params, folder)  # before the model: it starts the processes' rendezvous
        if params.train.launch.kind == "fsdp2" and params.container.device == "cpu":
            # accelerate 1.15 leaves FSDP out on a CPU without a word; told that these are GPUs it does shard, over gloo
            arguments.distributed_state.distributed_type = DistributedType.MULTI_GPU
        super().__init__(
            model=load_model(params, model_path),
            args=arguments,
            train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),  # TRL wants one; it is not read
            processing_class=load_tokenizer(model_path),
            peft_config=adapter(params),
        )
        self._require_launch()
        if self.is_fsdp_enabled and self.args.bf16:  # accelerate's policy sums gradients and rounds losses in bfloat16
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.float32)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy

    def _require_launch(self) -> None:
        """StageFailed unless the processes run as train.launch says: accelerate falls back without an error."""
        launch = self._settings.train.launch
        found = "fsdp2" if self.is_fsdp_enabled else "zero3" if self.is_deepspeed_enabled else "ddp"
        wanted = "ddp" if launch.kind == "single" else launch.kind
        if (found, self.args.world_size) != (wanted, launch.world_size):
            raise StageFailed(
                f"train.launch asks for {wanted} on {launch.world_size} processes, and accelerate gave {found} on "
                f"{self.args.world_size}; run `tldr doctor`, and report this."
            )

    def get_train_dataloader(self) -> Any:
        return _Endless()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], int]:
        """This process's micro-batches of the next step, and the response tokens of all processes' together."""
        pairs = self._batches.at(self._course.windows, self.state.global_step)
        parts = micro_batches(
            [example for _, example in pairs],
            self.args.per_device_train_batch_size,
            self.args.process_index,
            self.args.world_size,
            padding_free=self.padding_free,
        )
        assert len(parts) == num_batches, (len(parts), num_batches)
        return [self._rows(part) for part in parts], num_targets(pairs)

    def _rows(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """TRL's tensors of one micro-batch. Padding stands right, where a causal model does not look: positions in place
        of a mask say so, and sdpa takes its faster path without one."""
        tensors: dict[str, torch.Tensor] = self.data_collator([row(example) for example in examples])
        if not self.padding_free:
            mask = tensors.pop("attention_mask")
            tensors["position_ids"] = torch.arange(mask.shape[1]).expand(mask.shape[0], -1)
        return tensors

    def floating_point_ops(self, inputs: Any) -> int:
        """None are counted: nobody reads the sum, and the model's parameters would be counted anew for every micro-batch."""
        return 0

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None in checkpoints: `tldr card` writes one from measured results."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            mark_complete(Path(self.args.output_dir), self.state.global_step)
        self.accelerator.wait_for_everyone()

    def broken(self, step: int, what: str) -> str:
        """The sentence about a `step` (1 is the first) that left a `what` that is not finite."""
        pairs = self._batches.at(self._course.windows, step - 1)
        names = ", ".join(example.problem_id for _, example in pairs)
        return (
            f"The {what} is not finite at step {step}, so training stopped; lower train.lr or look at its examples "
            f"({names}); the checkpoint of step {last_step(Path(self.args.output_dir))} is kept."
        )

    def train_from(self, step: int) -> None:
        """Train on from the checkpoint of `step`; 0 is the base model."""
        folder = Path(self.args.output_dir)
        if step:
            require_fingerprint(folder, step)
        self.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}") if step else None)


def num_targets(pairs: list[Any]) -> int:
    return sum(len(example.token_ids) for _, example in pairs)


class _Endless:
    """Stands in for a data loader without a length; what it yields is not looked at."""

    def __iter__(self) -> Iterator[None]:
        while True:
            yield None


def sft_config(params: Params, folder: Path) -> SFTConfig:
    """TRL's settings; what is not named here stays at TRL's defaults."""
    train = params.train
    world = train.launch.num_processes * train.launch.num_machines
    return SFTConfig(
        output_dir=str(folder),
        max_steps=train.max_steps,
        per_device_train_batch_size=train.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // (train.micro_batch_size * world),
        learning_rate=train.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=params.model.dtype == "bfloat16",
        use_cpu=params.container.device == "cpu",
        gradient_checkpointing=train.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        padding_free=train.padding_free,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        seed=params.seed,
        ddp_timeout=WAIT_SECONDS,
        ddp_find_unused_parameters=False,
        ignore_data_skip=True,
        save_strategy="no",  # the control loop says when
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )


def load_model(params: Params, model_path: Path) -> Any:
    """Trained weights in float32 (under autocast where the model is served in bfloat16); frozen ones as they are served."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # on resume it would miss a tied output layer, which is stored once
    full = params.train.method == "full"
    return AutoModelForCausalLM.from_pretrained(
        str(model_path),
        dtype=MASTER_DTYPE if full else getattr(torch, params.model.dtype),
        attn_implementation=params.train.attention,
        local_files_only=True,
    )


def adapter(params: Params) -> Any:
    """The LoRA settings for peft; None where all weights are trained."""
    if params.train.method == "full":
        return None
    from peft import LoraConfig

    lora = params.train.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
