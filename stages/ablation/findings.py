"""The result of the ablation in sentences, each computed from the numbers: nothing is concluded in advance. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stages.ablation.statistics import Comparison, Contrast, TestSeeds


def findings(
    compared: Mapping[str, Comparison], groups: Mapping[str, Sequence[str]], reference: str, confidence: float
) -> list[str]:
    """A sentence for each of `groups` (arms by kind, such as "dynamic"): which can be told apart from `reference`, and how."""
    sentences = []
    for kind, arms in groups.items():
        tested = {arm: compared[arm] for arm in arms if arm in compared and compared[arm].tokens.p is not None}
        if not tested:
            continue
        apart = {arm: found for arm, found in tested.items() if _shown(found, 1 - confidence)}
        if not apart:
            sentences.append(
                f"No {kind} arm can be told apart from {reference}, the best static share on the tuning seeds, in tokens or "
                f"in accuracy ({_names(tested)}; paired t tests over seeds, level {100 * (1 - confidence):g} %, Holm)."
            )
        for arm, found in apart.items():
            sentences.append(f"{arm} ({kind}) differs from {reference}: {_described(found, 1 - confidence)}.")
        if apart and not any(_fewer(found.tokens, 1 - confidence) for found in apart.values()):
            sentences.append(f"No {kind} arm is shown to use fewer tokens than {reference}.")
        alike = [arm for arm in tested if arm not in apart]
        if apart and alike:
            verb = "has" if len(alike) == 1 else "have"
            sentences.append(f"Of the {kind} arms, {_names(alike)} {verb} not been told apart from {reference}.")
    if any(found.tokens.p is None for found in compared.values()):
        sentences.append("Arms that share a single seed with the best static share have no interval and no test.")
    return sentences


def passing(tested: Mapping[str, TestSeeds], margin: float) -> str:
    """Which arms kept the accuracy within the margin at every seed."""
    every = [arm for arm, runs in tested.items() if runs and all(run.passed for run in runs.values())]
    some = [arm for arm, runs in tested.items() if runs and arm not in every]
    points = f"{100 * margin:g}-point margin"
    if not some:
        return f"Every arm passes the {points} at every seed."
    if not every:
        return f"No arm passes the {points} at every seed."
    passes = "passes" if len(every) == 1 else "pass"
    return f"{_names(every)} {passes} the {points} at every seed; {_names(some)} not at every seed."


def _shown(found: Comparison, alpha: float) -> bool:
    return any(contrast.p is not None and contrast.p < alpha for contrast in (found.tokens, found.accuracy))


def _fewer(tokens: Contrast, alpha: float) -> bool:
    return tokens.p is not None and tokens.p < alpha and tokens.estimate.mean < 0


def _described(found: Comparison, alpha: float) -> str:
    tokens, points = found.tokens.estimate.mean, 100 * found.accuracy.estimate.mean
    return (
        f"{abs(tokens):.1f} {'fewer' if tokens < 0 else 'more'} tokens per answer ({_certainty(found.tokens, alpha)}), "
        f"accuracy {abs(points):.2f} points {'lower' if points < 0 else 'higher'} ({_certainty(found.accuracy, alpha)})"
    )


def _certainty(contrast: Contrast, alpha: float) -> str:
    assert contrast.p is not None
    return f"{'shown' if contrast.p < alpha else 'not shown'}, {p_text(contrast.p)}"


def p_text(p: float) -> str:
    """p = 0.03, and below a thousandth p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _names(arms: Mapping[str, object] | Sequence[str]) -> str:
    names = list(arms)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
