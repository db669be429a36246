"""Fill the generated blocks of README.md: the committed report, the simulated policies, and with --fidelity the model.

Run: `python -m benchmarks.readme [--fidelity]` after `tldr repro`. A test holds README.md against the first block.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from stages._params import load_params
from stages.cli.report import build_report
from stages.evidence.report import markdown
from stages.tiny.fidelity import compare_with_generator, fidelity_table
from stages.tiny.policies import Policy, named_policies, oracle, simulate

ROOT = Path(__file__).resolve().parents[1]


def report_block(root: Path) -> str:
    """Headline and table of the committed result, without the notes that depend on what lies in the checkout."""
    lines = markdown(build_report(root)).splitlines()
    return "\n".join(line for line in lines if line.startswith(("**", "|")) or not line).strip()


def policies_block() -> str:
    outcomes = simulate(60_000, seed=1)
    best = oracle(outcomes)
    rows = [
        *named_policies(outcomes),
        Policy(f"oracle: checks {best.name}", best.accuracy, best.mean_tokens, best.reduction),
    ]
    lines = ["| policy | accuracy | mean tokens | fewer tokens |", "|---|---:|---:|---:|"]
    lines += [f"| {p.name} | {p.accuracy:.3f} | {p.mean_tokens:.1f} | {p.reduction:.1%} |" for p in rows]
    return "\n".join(lines)


def fill(text: str, name: str, block: str) -> str:
    """`text` with what stands between the two markers `name` replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    assert pattern.search(text), f"README.md has no block {name}"
    return pattern.sub(lambda match: f"{match[1]}{block}\n{match[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fidelity", action="store_true", help="measure the shipped model again (about a minute)")
    readme = ROOT / "README.md"
    text = fill(readme.read_text(encoding="utf-8"), "report", report_block(ROOT))
    text = fill(text, "policies", policies_block())
    if parser.parse_args().fidelity:
        text = fill(text, "fidelity", fidelity_table(compare_with_generator(ROOT, load_params(ROOT), 1000, 11)))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
