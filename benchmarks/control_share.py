"""What share of training the control evaluations take, and in what they spend it.

`closed_loop` runs the stage's own training session on the shipped model with the numbers of params.yaml and times it from
the inside; it needs what `tldr repro ratio-schedule` leaves. As a program it times one control evaluation of any model
folder, for models whose answers mean nothing (`benchmarks.gpu train --control`): write the weights, load them in the engine,
prove them, answer; grading is not in it. Prints Markdown.
Run: `python -m benchmarks.control_share MODEL --seconds-per-step S [--device cuda] [--answer-tokens 4096]`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from stages._params import Params, check_params, load_params, read_yaml
from stages.cli.run import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
EVALUATION, CHECKPOINT = "control evaluation", "checkpoint for resuming, beside it"
CHOICE = "choice of the checkpoint, on the whole control set"
PARTS = {  # (module, attribute) -> row of the table: what an evaluation consists of
    ("stages.training.control_loop", "gather"): "weights out of the trainer",
    ("stages.training.snapshot", "write_model"): "model folder written",
    ("stages.training.pilot", "proven"): "loaded in the engine, proven",
    ("stages.training.pilot", "answer"): "control set answered",
    ("stages.training.control", "grade_responses"): "answers graded",
}
FIRST_ID, NUM_IDS, PROMPT_TOKENS = 3, 30, 128


class Times:
    """Seconds of every call, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)

    def watch(self, place: Any, attribute: str, name: str) -> None:
        """Time every call of `place.attribute` from now on; of a context manager, its entry."""
        original: Callable[..., Any] = getattr(place, attribute)

        @wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.of(name):
                result = original(*arguments, **named)
            return self._entered(result, name) if isinstance(result, contextlib.AbstractContextManager) else result

        setattr(place, attribute, timed)

    @contextlib.contextmanager
    def _entered(self, manager: contextlib.AbstractContextManager[Any], name: str) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            start = time.perf_counter()
            value = stack.enter_context(manager)
            self.seconds[name][-1] += time.perf_counter() - start
            yield value

    def total(self, name: str) -> float:
        return sum(self.seconds.get(name, [0.0]))


def closed_loop() -> None:
    """Wall time from the first step to the choice of the checkpoint: start-up of trainer and engine is not in it."""
    from stages.training import pilot, session
    from stages.training.control_loop import ControlLoop
    from stages.training.inputs import read_inputs
    from stages.training.trainer import MixtureTrainer

    params, times = load_params(ROOT), Times()
    inputs = read_inputs(ROOT, params)
    for (module, attribute), name in PARTS.items():
        times.watch(importlib.import_module(module), attribute, name)
    times.watch(ControlLoop, "_next_share", EVALUATION)
    times.watch(MixtureTrainer, "_save_checkpoint", CHECKPOINT)
    times.watch(MixtureTrainer, "train_from", "training")
    times.watch(pilot, "confirmed", CHOICE)
    with tempfile.TemporaryDirectory() as folder:
        session.train(params, inputs, Path(folder))
    print_shares(params, times)


def print_shares(params: Params, times: Times) -> None:
    whole, evaluations = times.total("training") + times.total(CHOICE), times.seconds[EVALUATION]
    asked = params.ratio.control_questions or "all"
    print(
        f"{params.train.max_steps} steps of {params.train.batch_size} examples, {len(evaluations)} control evaluations "
        f"(update_every {params.train.update_every}, {asked} questions, {params.ratio.control_samples} answers each, engine "
        f"{params.engine.name} x {params.engine.processes}, {params.train.control_engine}).\n"
    )
    print("| part | seconds, each | share of training, % |\n|---|---|---:|")
    names = [EVALUATION, *PARTS.values(), CHECKPOINT, CHOICE]
    graded, answered = PARTS["stages.training.control", "grade_responses"], PARTS["stages.training.pilot", "answer"]
    at_updates = times.seconds[graded][: len(evaluations)]  # after them those of the choice
    times.seconds[answered] = [both - alone for both, alone in zip(times.seconds[answered], at_updates, strict=True)]
    for name in names:
        each = ", ".join(f"{seconds:.2f}" for seconds in times.seconds[name])
        print(f"| {name} | {each} | {100 * times.total(name) / whole:.1f} |")
    print(f"| whole training | {whole:.1f} | 100 |")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model", type=Path)
    options.add_argument("--seconds-per-step", type=float, required=True, help="of training, as measured")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--engine", choices=("hf", "vllm"), help="left out: vllm on a GPU that has it, else hf")
    options.add_argument("--questions", type=int, default=32, help="asked at an update")
    options.add_argument("--answer-tokens", type=int, default=4096, help="length of every answer")
    options.add_argument("--gpu-memory", type=float, default=0.4, help="share of the GPU that vLLM takes")
    return options


def parameters(options: argparse.Namespace) -> Params:
    """params.yaml with one engine process that draws answers of `answer_tokens`; every other number as it is."""
    document = read_yaml(ROOT / "params.yaml")
    cuda = options.device == "cuda"
    name = options.engine or ("vllm" if cuda and importlib.util.find_spec("vllm") else "hf")
    document["model"] = {"path": str(options.model.resolve()), "dtype": "bfloat16" if cuda else "float32"}
    document["container"]["device"] = options.device
    document["engine"] |= {"name": name, "processes": 1}
    document["engine"]["vllm"] |= {"gpu_memory_utilization": options.gpu_memory, "enforce_eager": not cuda}
    if cuda:
        document["engine"]["vllm"]["kv_cache_gb"] = None
    document["decode"]["max_tokens"] = options.answer_tokens
    document["evaluate"]["budgets"] = [options.answer_tokens]
    return check_params(document, "params.yaml")


def evaluation(params: Params, num_questions: int) -> tuple[Times, int]:
    """One control evaluation as `train` does it with control_engine: reload, and the tokens that it drew."""
    from safetensors.torch import load_file
    from transformers import AutoConfig

    from stages.data.model_folder import weight_files
    from stages.engines.base import Request, decode_spec, open_engine
    from stages.training.serving import ReloadServer, proven
    from stages.training.snapshot import Snapshot, write_model

    model, times, rng = Path(params.model.path), Times(), random.Random(params.seed)
    weights = {name: tensor for file in weight_files(model) for name, tensor in load_file(file).items()}
    prompts = [tuple(rng.choices(range(FIRST_ID, FIRST_ID + NUM_IDS), k=PROMPT_TOKENS)) for _ in range(num_questions)]
    samples = range(params.ratio.control_samples)
    requests = [Request(f"question-{q}", sample, ids) for q, ids in enumerate(prompts) for sample in samples]
    AutoConfig.from_pretrained(str(model), local_files_only=True)  # imports what the trainer would have imported
    served = open_engine(params, model)
    with tempfile.TemporaryDirectory() as name, ReloadServer(served) as server:
        list(served.generate(requests[:4], decode_spec(params), 0))  # the engine is up after this
        folder = Path(name) / "served"
        with times.of(PARTS["stages.training.snapshot", "write_model"]):
            write_model(weights, model, params.model.dtype, folder)
        with contextlib.ExitStack() as stack:
            with times.of(PARTS["stages.training.pilot", "proven"]):
                engine, _ = stack.enter_context(proven(server, Snapshot(weights, folder, None)))
            with times.of(PARTS["stages.training.pilot", "answer"]):
                drawn = engine.generate(requests, decode_spec(params), params.seed)
                tokens = sum(response.num_tokens for response in drawn)
    return times, tokens


def main() -> None:
    options = parser().parse_args()
    os.environ.update(ENVIRONMENT)
    params = parameters(options)
    times, tokens = evaluation(params, options.questions)
    control = sum(times.total(name) for name in times.seconds)
    steps = params.train.update_every * options.seconds_per_step
    print(
        f"One control evaluation: {options.questions} questions x {params.ratio.control_samples} answers of at most "
        f"{options.answer_tokens} tokens ({tokens:,} drawn), engine {params.engine.name}, alone on the device.\n"
    )
    print("| part | seconds |\n|---|---:|")
    for name in times.seconds:
        print(f"| {name} | {times.total(name):.2f} |")
    print(f"| control evaluation | {control:.1f} |\n| {params.train.update_every} training steps | {steps:.1f} |")
    share = control / (control + steps)
    print(f"\nShare of the control loop at update_every {params.train.update_every}: {share:.1%}.")


if __name__ == "__main__":
    main()
