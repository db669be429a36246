"""Training speed: our trainer against a hand-written loop and TRL's SFTTrainer on the same examples; the control loop's share.

On the shipped model it reads artifacts/labels and the numbers of params.yaml; on any other model folder (`--model`) it draws
examples of real lengths (benchmarks/lengths.csv) with random tokens. A run is a process of its own; the contestants take
turns. Start-up and the first steps are excluded. Prints Markdown: `python -m benchmarks.training [--pairs 5] [--steps 49]`;
`--control` prints what share of a training run the control evaluations take instead.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu import header
from benchmarks.lengths import drawn_examples
from stages._errors import TldrError, UserError
from stages._io import write_json
from stages._params import Params, check_params, read_yaml
from stages.cli.run import ENVIRONMENT
from stages.data.model_folder import read_config
from stages.training.course import Course
from stages.training.examples import Batches, Examples, read_examples

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "ours": "ours",
    "minimal": "hand-written loop",
    "trl": "TRL, its defaults (padded, gradient checkpointing)",
    "trl_kept": "TRL, its defaults but no gradient checkpointing (padded)",
    "trl_free": "TRL, padding_free",
}
ON_CPU = ("ours", "minimal", "trl", "trl_kept")
ATTENTION = "attention"  # a kind that times nothing and says which attention runs


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=5, help="runs of each contestant")
    options.add_argument("--steps", type=int, default=49, help="optimiser steps of a run")
    options.add_argument("--excluded", type=int, default=1, help="first steps that are not timed")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=ON_CPU)
    options.add_argument("--control", action="store_true", help="time the control loop instead, on the shipped model")
    options.add_argument("--model", type=Path, help="model folder; left out: the one of params.yaml and its labels")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--method", choices=("full", "lora"), help="left out, as all below: what params.yaml says")
    options.add_argument("--attention", help="a value of train.attention, or auto: padding-free if any such runs here")
    options.add_argument("--batch-size", type=int)
    options.add_argument("--micro-batch", type=int)
    options.add_argument("--max-length", type=int)
    options.add_argument("--recompute", action="store_true", help="gradient checkpointing in our trainer too")
    options.add_argument("--results", type=Path, help="JSON file for everything that was measured")
    options.add_argument("--kind", choices=(*KINDS, ATTENTION), help="one contestant in this process; prints JSON")
    return options


def parameters(options: argparse.Namespace) -> Params:
    """params.yaml with one window of `options.steps` steps and what the options say; every other number as it is."""
    document = read_yaml(ROOT / "params.yaml")
    document["container"]["device"] = options.device
    if options.device == "cuda":
        document["model"]["dtype"] = "bfloat16"
    if options.model is not None:
        document["model"]["path"] = str(options.model.resolve())
    wanted = {
        "max_steps": options.steps,
        "update_every": options.steps,
        "method": options.method,
        "attention": options.attention,
        "batch_size": options.batch_size,
        "micro_batch_size": options.micro_batch,
        "max_length": options.max_length,
        "gradient_checkpointing": options.recompute or None,
    }
    document["train"] |= {name: value for name, value in wanted.items() if value is not None}
    if options.kind in ("trl", "trl_kept"):
        document["train"]["attention"] = "sdpa"  # what transformers chooses by default, and right for padded rows
    return check_params(document, "params.yaml")


def examples_of(params: Params, options: argparse.Namespace) -> Examples:
    if options.model is None:
        return read_examples(ROOT / "artifacts" / "labels", params.train.max_length)
    number = params.train.max_steps * params.train.batch_size
    num_ids = read_config(options.model)["vocab_size"]
    return drawn_examples(number, params.train.max_length, num_ids, params.seed)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What one contestant does in this process, its MFU and peak memory in GiB (of the GPU, on a GPU; else resident);
    `out_of_memory` if it does not fit."""
    import torch

    from benchmarks import contestants
    from stages.training.session import MEMORY_SIGNS

    if options.kind == ATTENTION:
        return {"attention": contestants.loadable_attention(options.device)}
    params = parameters(options)
    train, model, first = params.train, ROOT / params.model.path, options.excluded
    examples = examples_of(params, options)
    known, batches = (
        Batches(examples, train.batch_size, params.seed, train.unit) for _ in range(2)
    )  # ours starts cold
    course = Course(train.update_every, train.batch_size, [params.ratio.init])
    pairs = [pair for step in range(train.max_steps) for pair in known.at(course.windows, step)]
    with tempfile.TemporaryDirectory() as name:
        try:
            if options.kind == "ours":
                found = contestants.ours(params, model, Path(name), batches, course, first)
            elif options.kind == "minimal":
                found = contestants.minimal(params, model, pairs, first)
            else:
                free, recompute = options.kind == "trl_free", options.kind != "trl_kept"
                found = contestants.trl(params, model, Path(name), pairs, first, free, recompute)
        except RuntimeError as error:
            if not any(sign in str(error) for sign in MEMORY_SIGNS):
                raise
            return {"out_of_memory": True}
    lengths = [example.num_tokens for _, example in pairs]
    speed = found["tokens"] / found["seconds"]
    found["mfu"] = contestants.utilisation(params, model, lengths, speed)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["memory"] = (torch.cuda.max_memory_allocated() if options.device == "cuda" else resident) / 2**30
    found |= {"num_examples": len(pairs), "mean_length": statistics.fmean(lengths), "longest": max(lengths)}
    return found | {"timed_steps": train.max_steps - first}


def child(kind: str, extra: list[str]) -> dict[str, Any]:
    """The JSON that `--kind` prints last; what it printed before is passed on."""
    command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], *extra, "--kind", kind]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    *lines, last = done.stdout.splitlines()
    if kind == ATTENTION and lines:
        print("\n".join(lines) + "\n")
    found: dict[str, Any] = json.loads(last)
    return found


def compare(options: argparse.Namespace, params: Params) -> None:
    """The contestants in turn, every other time in reverse; prints a table."""
    extra = ["--attention", params.train.attention]
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in options.kinds}
    for pair in range(options.pairs):
        for kind in options.kinds[:: -1 if pair % 2 else 1]:
            if not any("out_of_memory" in result for result in results[kind]):
                results[kind].append(child(kind, extra))
    train = params.train
    whole = next((each[0] for each in results.values() if "tokens" in each[0]), None)
    if whole is not None:
        print(
            f"{whole['num_examples']} examples, mean {whole['mean_length']:.0f} tokens, longest {whole['longest']}; batch "
            f"{train.batch_size}, micro-batch {train.micro_batch_size}, {train.method}, attention of ours {train.attention}"
            f"{', gradient checkpointing' if train.gradient_checkpointing else ''}; steps {options.excluded + 1} to "
            f"{options.steps} timed.\n"
        )
    print_table(results)
    if options.results is not None:
        write_json(options.results, results)
    if "ours" in results and "minimal" in results:
        ends = [results[kind][0]["loss"] for kind in ("ours", "minimal")]
        print(f"\nLoss of the last step: ours {ends[0]:.6f}, hand-written loop {ends[1]:.6f}.")


def print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Speeds in prompt and response tokens per second; `-` where there is no such figure."""
    print("| trainer | tokens/s, each run | median | ours / it | MFU, % | peak memory, GiB |")
    print("|---|---|---:|---:|---:|---:|")
    speeds = {
        kind: [result["tokens"] / result["seconds"] for result in found if "tokens" in result]
        for kind, found in results.items()
    }
    base = statistics.median(speeds["ours"]) if speeds.get("ours") else None
    for kind, found in results.items():
        if not speeds[kind]:
            print(f"| {KINDS[kind]} | out of memory | - | - | - | - |")
            continue
        median = statistics.median(speeds[kind])
        each = ", ".join(f"{speed:,.0f}" for speed in speeds[kind])
        ratio = "-" if base is None else f"{base / median:.3f}"
        done = [result for result in found if "tokens" in result]
        mfu = "-" if done[0]["mfu"] is None else f"{statistics.median(result['mfu'] for result in done):.1f}"
        memory = max(result["memory"] for result in done)
        print(f"| {KINDS[kind]} | {each} | {median:,.0f} | {ratio} | {mfu} | {memory:.2f} |")


def main() -> None:
    options = parser().parse_args()
    os.environ.update(ENVIRONMENT)
    try:
        if options.kind:
            print(json.dumps(measure(options)))
            return
        if options.model is None:
            print(f"## {header(options.device)}\n", flush=True)
        if options.control:
            from benchmarks.control_share import closed_loop

            closed_loop()
            return
        if options.attention == "auto":
            options.attention = child(ATTENTION, [])["attention"]
        if options.steps <= options.excluded:
            raise UserError(
                f"--steps {options.steps} leaves no step to time; allow more than --excluded {options.excluded}."
            )
        params = parameters(options)
        examples_of(params, options)  # what is wrong with them is said once, before any process
        compare(options, params)
    except TldrError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
