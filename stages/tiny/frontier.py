"""Print the simulated checking policies of the tiny task and the oracle frontier. Run: `tldr tiny frontier`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from stages.tiny.policies import Policy, frontier, named_policies, oracle, simulate


def frontier_report(num_chains: int, seed: int) -> dict[str, Any]:
    """`policies`, `frontier` and `oracle`, each policy with name, accuracy, mean_tokens, reduction."""
    outcomes = simulate(num_chains, seed)
    return {
        "chains_per_length": num_chains,
        "policies": [asdict(p) for p in named_policies(outcomes)],
        "frontier": [asdict(p) for p in frontier(outcomes)],
        "oracle": asdict(oracle(outcomes)),
    }


def print_frontier(num_chains: int, seed: int, as_json: bool, console: Any) -> None:
    """The report as JSON on standard output, or as two rich tables on `console`."""
    report = frontier_report(num_chains, seed)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console.print(_table("Checking policies, simulated", [Policy(**p) for p in report["policies"]]))
    hull = [Policy(**p) for p in report["frontier"] if p["reduction"] >= 0]
    console.print(_table("Oracle frontier (checks at length 1 to 8)", hull))
    best = Policy(**report["oracle"])
    console.print(
        f"Most that costs nothing: {best.reduction:.1%} fewer tokens at accuracy {best.accuracy:.3f} "
        f"(checks {best.name}); {num_chains:,} chains per length."
    )


def _table(title: str, policies: list[Policy]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("policy")
    for name in ("accuracy", "mean tokens", "reduction"):
        table.add_column(name, justify="right")
    for policy in policies:
        table.add_row(policy.name, f"{policy.accuracy:.3f}", f"{policy.mean_tokens:.1f}", f"{policy.reduction:+.1%}")
    return table
