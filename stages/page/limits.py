"""The card of limits: what a reader of the page may not conclude. Sentences from the report; nothing is read or written.

The report is the dict of `evidence.summary.compare` with `profile`, `model` and `container`, as `tldr report --json` has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """A heading of a few words and what follows from it."""

    title: str
    text: str


def limits(report: Mapping[str, Any], *, is_tiny: bool) -> list[Limit]:
    """In order of weight; those that do not apply are left out."""
    found = [
        *_selection(report),
        _verdict(report),
        _sample(report),
        *_rows(report),
        Limit(
            "One training run",
            "The intervals hold over questions and the answers drawn to them. They do not hold over training: another seed "
            "of the training, another draw of its data or another base checkpoint may give another result.",
        ),
        _truncation(report),
        Limit(
            "Tokens are not seconds",
            "Fewer tokens per answer lower cost and waiting, but by how much depends on the engine, the batch and the price of "
            "prompt tokens; none of that was measured here.",
        ),
        Limit(
            "These tasks, this decoding",
            "The result is about the questions in the table at one setting of temperature, top-p and token limit (see "
            "Provenance). It says nothing of other tasks, longer limits, or other behaviour of the model.",
        ),
        *_places(report),
        *(Limit("The two sides differ", sentence) for sentence in report.get("mismatches", ())),
    ]
    return [*found, *_organism()] if is_tiny else found


def _selection(report: Mapping[str, Any]) -> list[Limit]:
    if not report.get("model", {}).get("selection_fallback"):
        return []
    text = (
        "No checkpoint was shown to be as accurate as the base model on the control set, so the most accurate one was taken. "
        "The run did not reach its own condition for a result."
    )
    return [Limit("Selection fallback", text)]


def _verdict(report: Mapping[str, Any]) -> Limit:
    margin = f"{100 * report['margin']:g} point{'' if report['margin'] == 0.01 else 's'}"
    texts = {
        "PASS": f"PASS means that less than {margin} was lost, not that nothing was lost or that the model became better.",
        "FAIL": f"FAIL means that more than {margin} was lost; the tokens that were saved do not weigh against it here.",
        "INCONCLUSIVE": f"INCONCLUSIVE means that a loss of {margin} was neither excluded nor shown. It is not evidence of "
        "equal accuracy, however small the difference looks.",
    }
    return Limit("The verdict is about the margin", texts[report["verdict"]])


def _sample(report: Mapping[str, Any]) -> Limit:
    base, effect = report["baseline"], report["minimum_detectable_effect"]
    text = f"{_count(base['num_questions'], 'question')} with {_count(base['num_samples'], 'answer')} of the baseline."
    if effect is None:
        return Limit("Sample size", f"{text} That is too few to say what loss could be excluded.")
    return Limit(
        "Sample size",
        f"{text} At equal accuracy such a comparison excludes losses from {100 * effect:.2f} points on (power 80 %); smaller "
        "ones may be there unseen.",
    )


def _rows(report: Mapping[str, Any]) -> list[Limit]:
    verdicts = [row["verdict_holm"] for row in report["tasks"].values()]
    if len(verdicts) < 2:
        return []
    num_open = verdicts.count("INCONCLUSIVE")
    text = (
        f"Of {len(verdicts)} rows, {num_open} {'is' if num_open == 1 else 'are'} INCONCLUSIVE. The verdicts of the rows are "
        "adjusted for their number (Holm), their intervals are not: the best and the worst row are partly chance."
    )
    return [Limit("Rows are small samples", text)]


def _truncation(report: Mapping[str, Any]) -> Limit:
    before, after = (100 * report[side]["truncation_rate"] for side in ("baseline", "candidate"))
    text = (
        f"{before:.2f} % of the answers before and {after:.2f} % after were cut, at the token limit or for repeating "
        "themselves. They count as wrong and with the tokens they had: at a higher limit accuracies, token means and the "
        "reduction would be others."
    )
    return Limit("Truncated answers", text)


def _places(report: Mapping[str, Any]) -> list[Limit]:
    mixed = [name for name, value in report.get("container", {}).items() if " and " in value]
    if not mixed:
        return []
    text = f"Training and evaluations differ in their container's {', '.join(mixed)}; part of the difference may be due to it."
    return [Limit("Made in different places", text)]


def _organism() -> list[Limit]:
    text = (
        "The tiny profile is a reasoner of half a million parameters on chains of sums modulo 11. It shows that the pipeline "
        "measures and steers what it claims to; it predicts nothing about a large model."
    )
    return [Limit("A model organism", text)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
