"""Useful tokens per second of the transformers engine on the shipped model, start-up excluded.

Draws answers to control problems with the numbers of params.yaml. Run: `python -m benchmarks.generation [--answers 4096]`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from stages._params import load_params
from stages.data.problems import read_problems
from stages.data.prompts import load_tokenizer
from stages.engines.base import decode_spec, open_engine
from stages.engines.rollouts import make_requests

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=4096)
    wanted = parser.parse_args().answers
    params = load_params(ROOT)
    model = ROOT / params.model.path
    problems = read_problems(ROOT / params.data.control.path)
    requests = make_requests(load_tokenizer(model), problems, -(-wanted // len(problems)))[:wanted]
    with open_engine(params, model) as engine:
        list(engine.generate(requests[:4], decode_spec(params), 0))  # the workers are up after this
        start = time.perf_counter()
        tokens = sum(response.num_tokens for response in engine.generate(requests, decode_spec(params), params.seed))
        seconds = time.perf_counter() - start
    print(f"{len(requests)} answers, {tokens:,} tokens, {seconds:.1f} s: {tokens / seconds:,.0f} useful tokens/s")
    print(
        f"{params.engine.processes} processes x {params.engine.threads} thread, batches of {params.engine.batch_size}"
    )


if __name__ == "__main__":
    main()
