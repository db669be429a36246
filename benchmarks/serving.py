"""`sample` with the vLLM engine against vLLM's own `LLM.generate` on the same requests: tokens per second, and memory.

Reads the shipped model and its control problems, or any model folder with prompts of random tokens (`--model`,
`--prompt-tokens`); prints one line per run and the ratios of the medians. A run is a process of its own; the kinds of runs
alternate. Start-up is excluded on both sides. Run it where vLLM is installed:
`python -m benchmarks.serving [--requests 2000] [--pairs 5]`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stages._params import Params, check_params, read_yaml
from stages.data.problems import read_problems
from stages.data.prompts import load_tokenizer
from stages.engines.base import Request, answer_seed, decode_spec, open_engine
from stages.engines.rollouts import draw, make_requests

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "bare": "LLM.generate, one request per answer",
    "bare_n": "LLM.generate, n answers per request",
    "ours": "sample's engine, answers written as they end",
}
FIRST_IDS = 30  # random prompts use ids 3 to 32, which every tokenizer has


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=2000, help="answers")
    options.add_argument("--samples-per-request", type=int, default=4)
    options.add_argument("--pairs", type=int, default=5, help="runs of each kind")
    options.add_argument("--model", type=Path, help="model folder; left out: the one of params.yaml")
    options.add_argument(
        "--prompt-tokens", type=int, help="random prompts of this length instead of the control problems"
    )
    options.add_argument("--max-tokens", type=int, help="left out: decode.max_tokens")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--threads", type=int, default=1, help="of the engine, on a CPU")
    options.add_argument("--kv-cache-gb", type=float, help="left out: what params.yaml says (cuda: the GPU's)")
    options.add_argument("--kind", choices=KINDS, help="measure one kind in this process and print JSON")
    return options


def parameters(options: argparse.Namespace) -> Params:
    """params.yaml with one vLLM process; on a GPU bfloat16 and CUDA graphs; every other number as it is."""
    document = read_yaml(ROOT / "params.yaml")
    document["engine"] |= {"name": "vllm", "processes": 1, "threads": options.threads}
    document["container"]["device"] = options.device
    if options.device == "cuda":
        document["model"]["dtype"] = "bfloat16"
        document["engine"]["vllm"] |= {"kv_cache_gb": options.kv_cache_gb, "enforce_eager": False}
    if options.model is not None:
        document["model"]["path"] = str(options.model)
    if options.max_tokens is not None:
        document["decode"]["max_tokens"] = options.max_tokens
        document["evaluate"]["budgets"] = [options.max_tokens]
    if options.prompt_tokens is not None:
        document["engine"]["vllm"]["max_prompt_tokens"] = options.prompt_tokens
    return check_params(document, "params.yaml")


def wanted_requests(params: Params, options: argparse.Namespace) -> list[Request]:
    """`options.requests` answers, `options.samples_per_request` to each prompt."""
    num_samples = options.samples_per_request
    num_prompts = -(-options.requests // num_samples)
    if options.prompt_tokens is None:
        problems = read_problems(ROOT / params.data.control.path)
        spread = [problems[index % len(problems)] for index in range(num_prompts)]
        prompts = [r.prompt_ids for r in make_requests(load_tokenizer(ROOT / params.model.path), spread, 1)]
    else:
        rng = random.Random(params.seed)
        ids = range(3, 3 + FIRST_IDS)
        prompts = [tuple(rng.choices(ids, k=options.prompt_tokens)) for _ in range(num_prompts)]
    every = [Request(f"prompt-{p}", sample, ids) for p, ids in enumerate(prompts) for sample in range(num_samples)]
    return every[: options.requests]


def bare(params: Params, requests: list[Request], num_samples: int) -> dict[str, Any]:
    """vLLM's own loop: nothing but `generate` on the same prompts, seeds and sampling parameters."""
    from stages.data.model_folder import end_token_ids
    from stages.engines.vllm_model import VllmModel, sampling_params

    model = ROOT / params.model.path
    device, max_tokens = params.container.device, params.decode.max_tokens
    llm = VllmModel(0, str(model), params.model.dtype, device, params.engine, max_tokens, True)._llm
    ends, spec = end_token_ids(model), decode_spec(params)
    prompts = [{"prompt_token_ids": list(r.prompt_ids)} for r in requests[::num_samples]]
    seeds = [answer_seed(params.seed, r.problem_id, r.sample_index) for r in requests[::num_samples]]
    settings = [sampling_params(spec, seed, ends, logprobs=True) for seed in seeds]
    for one in settings:
        one.n = num_samples
    llm.generate(prompts[:4], settings[:4], use_tqdm=False)
    start = time.perf_counter()
    outputs = llm.generate(prompts, settings, use_tqdm=False)
    seconds = time.perf_counter() - start
    tokens = sum(len(answer.token_ids) for output in outputs for answer in output.outputs)
    return {"tokens": tokens, "seconds": seconds}


def ours(params: Params, requests: list[Request]) -> dict[str, Any]:
    """What `sample` does between the start of the engine and the last answer in its log."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_engine(params, ROOT / params.model.path, logprobs=True) as engine,
    ):
        list(engine.generate(requests[:4], decode_spec(params), 0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        drawn = draw(engine, requests, decode_spec(params), params.seed, Path(folder) / "log.jsonl", "benchmark")
        seconds = time.perf_counter() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        tokens = sum(response.num_tokens for response in drawn)
    return {"tokens": tokens, "seconds": seconds, "bytes_per_answer": grown * 1024 / len(requests)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from stages.engines.vllm_model import set_environment

    params = parameters(options)
    set_environment(0, params.container.device, params.engine)  # threads count only if set before torch is imported
    requests = wanted_requests(params, options)
    if options.kind == "ours":
        return ours(params, requests)
    return bare(params, requests, options.samples_per_request if options.kind == "bare_n" else 1)


def main() -> None:
    options = parser().parse_args()
    if options.kind:
        print(json.dumps(measure(options)))
        return
    speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.pairs):
        for kind, title in KINDS.items():
            command = [sys.executable, "-m", "benchmarks.serving", "--kind", kind, *sys.argv[1:]]
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            speeds[kind].append(found["tokens"] / found["seconds"])
            memory = f", {found['bytes_per_answer']:.0f} bytes per answer" if "bytes_per_answer" in found else ""
            print(f"{title}: {found['tokens']:,} tokens, {speeds[kind][-1]:,.0f} tokens/s{memory}", flush=True)
    medians = {kind: statistics.median(values) for kind, values in speeds.items()}
    print(f"ours / bare: {medians['ours'] / medians['bare']:.3f}")
    print(f"n answers per request / one request per answer: {medians['bare_n'] / medians['bare']:.3f}")


if __name__ == "__main__":
    main()
