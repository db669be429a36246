"""How long the stage label-by-length takes, and how much memory it needs, as the number of responses grows.

Makes tiny problems anew (System-1 of 3 and 4 steps, System-2 of 5 to 8; those that the overlap check would refuse are left
out), four answers to each as the shipped tokenizer writes them, and the samples.parquet of all; runs the stage on it in a
process of its own with the parameters of params.yaml. Peak memory is the stage's VmHWM (/proc), plus for the verifier `math`
the ru_maxrss of its largest worker times their number, an upper bound: pages that they share count each time. Run:
`python -m benchmarks.labels [--responses 250000 500000 1000000]`; prints a table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from stages._io import write_jsonl, write_text
from stages._params import Params, load_params, read_yaml
from stages.data.overlap import find_overlaps, likeness
from stages.data.problems import Problem, read_problems
from stages.data.prompts import load_tokenizer, prompt_ids
from stages.engines.base import decode_spec
from stages.label_by_length import main as label_by_length
from stages.sample import _write_parquet
from stages.tiny.chains import BOS, EOS, THINK, parse_prompt, prompt_text, random_chain, solve, write_response

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = {"system1": (3, 4), "system2": (5, 6, 7, 8)}  # there are too few shorter chains that are no test problem
MOST_CHECKS = 4
KIB = 1024  # unit of VmHWM and ru_maxrss on Linux


def make_problems(number: int) -> dict[str, list[Problem]]:
    """`number` problems of each source."""
    held = {name: read_problems(ROOT / "data" / "tiny" / f"{name}.jsonl") for name in ("control", "test")}
    rng, found = Random(number), {}
    for name, lengths in LENGTHS.items():
        chains = (random_chain(lengths[i % len(lengths)], rng) for i in range(number + number // 50 + 10))
        found[name] = [Problem(f"{name}-{i}", prompt_text(c), str(solve(c)), None, None) for i, c in enumerate(chains)]
    overlaps = find_overlaps(found | held, likeness(load_params(ROOT)))
    refused = {name for overlap in overlaps for name in (overlap.first_id, overlap.second_id)}
    return {name: [one for one in rows if one.id not in refused][:number] for name, rows in found.items()}


def answer_rows(problems: dict[str, list[Problem]], params: Params) -> Iterator[dict[str, Any]]:
    """Rows as `sample` writes them; steps are written wrong as often as in the shipped model's training."""
    tokenizer, rng = load_tokenizer(ROOT / params.model.path), Random(1)
    vocabulary = tokenizer.get_vocab()
    shared = {"engine": "hf", "model_hash": "0" * 16, "decode_hash": decode_spec(params).digest}
    for source, rows in problems.items():
        for place, problem in enumerate(rows):
            prompt = [vocabulary[word] for word in (BOS, *problem.prompt.split(), THINK)]
            assert place or tuple(prompt) == prompt_ids(tokenizer, problem.prompt)
            for index in range(params.sample.samples_per_problem):
                words, _ = write_response(parse_prompt(problem.prompt), rng.randint(0, MOST_CHECKS), rng)
                words.append(EOS)
                yield {
                    "source": source,
                    "problem_id": problem.id,
                    "sample_index": index,
                    "seed": rng.getrandbits(62),
                    "prompt_ids": prompt,
                    "token_ids": [vocabulary[word] for word in words],
                    "text": " ".join(words),
                    "num_tokens": len(words),
                    "finish_reason": "stop",
                    "cumulative_logprob": -1.0,
                    **shared,
                }


def write_project(folder: Path, num_responses: int, verifier: str) -> None:
    """params.yaml, problem files and samples.parquet in `folder`; model, control and test problems are the shipped ones."""
    document = read_yaml(ROOT / "params.yaml")
    number = num_responses // document["sample"]["samples_per_problem"] // len(LENGTHS)
    problems = make_problems(number)
    document["model"]["path"] = str(ROOT / document["model"]["path"])
    document["data"]["verifier"] = verifier
    for name in ("control", "test", *problems):
        document["data"][name]["path"] = str(ROOT / document["data"][name]["path"])
    for name, rows in problems.items():
        document["data"][name]["path"] = f"{name}.jsonl"
        write_jsonl(folder / f"{name}.jsonl", ({"id": p.id, "prompt": p.prompt, "gold": p.gold} for p in rows))
    write_text(folder / "params.yaml", json.dumps(document))
    _write_parquet(folder / "artifacts" / "samples.parquet", answer_rows(problems, load_params(folder)))


def run_stage(folder: Path) -> None:
    """In a process of its own: the stage; prints seconds, CPU seconds and peak MiB."""
    start = time.perf_counter()
    params = load_params(folder)
    label_by_length(folder, params)
    seconds = time.perf_counter() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    peak = int(status["VmHWM"].split()[0])
    if params.data.verifier == "math":
        peak += workers.ru_maxrss * params.engine.processes
    print(json.dumps([seconds, used, peak / KIB]))


def measure(num_responses: int, verifier: str) -> tuple[str, ...]:
    """Cells of one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), num_responses, verifier)
        size = (Path(folder) / "artifacts" / "samples.parquet").stat().st_size / KIB**2
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.labels", "--stage", folder]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        whole = time.perf_counter() - start
        seconds, used, peak = json.loads(done.stdout)
        labels = json.loads((Path(folder) / "results" / "labels.json").read_text())
    chosen = sum(labels[source]["num_chosen"] for source in LENGTHS)
    times = (f"{each:.1f}" for each in (seconds, whole, used))
    return f"{labels['num_responses']:,}", f"{size:.0f}", f"{chosen:,}", *times, f"{peak:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--verifier", choices=("exact", "math"), default="exact")
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage)
        return
    print("| responses | file, MiB | chosen | stage, s | whole process, s | CPU, s | peak memory, MiB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for number in options.responses:
        print(f"| {' | '.join(measure(number, options.verifier))} |", flush=True)


if __name__ == "__main__":
    main()
