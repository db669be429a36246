"""A report as CSV, for spreadsheets. Input is the dict of `summary.compare`; nothing is read or written."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]
NESTED = ("tasks", "runs", "spread", "names", "pass_at_k", "baseline", "candidate")


def csv_text(report: Report) -> str:
    """A line per row and one for all of them, every figure at full precision; undefined ones are empty."""
    base, candidate = report["baseline"], report["candidate"]
    named = [(name, part, base["tasks"][name], candidate["tasks"][name]) for name, part in report["tasks"].items()]
    lines = [
        {"row": name, **_flat(part), **_flat(before, "baseline_"), **_flat(after, "candidate_")}
        for name, part, before, after in [*named, ("overall", report, base, candidate)]
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _flat(value: Report, prefix: str = "") -> dict[str, Any]:
    """Numbers and texts of a nested dict; a pair of bounds becomes two columns."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and key not in NESTED:
            flat |= _flat(item, f"{prefix}{key}_")
        elif key in ("ci", "weights") or key.endswith("_ci"):
            if key != "weights":
                low, high = item or (None, None)
                flat |= {f"{prefix}{key}_lower": low, f"{prefix}{key}_upper": high}
        elif isinstance(item, (str, int, float)) or item is None:
            flat[prefix + key] = item
    return flat
