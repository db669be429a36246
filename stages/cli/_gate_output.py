"""What `tldr check` shows and writes: a table, Markdown, JUnit XML and the annotations of GitHub Actions.

Input is the dict of `evidence.gate.decide` with what `stages.cli.check` adds to it; after an error {verdict: "ERROR", message,
...} without benchmarks. Names come from outside: whatever does not print is spelled out, and every format escapes its own
signs. Functions return text; `render` prints to the console that is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages.evidence.policy import GATING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from rich.console import Console

Result = Mapping[str, Any]
Row = dict[str, str]
COLUMNS = ("benchmark", "tier", "what", "before", "after", "observed", "limit", "verdict")
STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow", "ERROR": "bold red"}
WHAT = {"accuracy": "accuracy", "tokens": "fewer tokens", "truncation": "truncated", "no_think": "without thought"}
NOT_MEASURED = "the baseline has this benchmark and the candidate does not"
MEANING = {
    ("accuracy", "PASS"): "the loss is shown to be below the margin",
    ("accuracy", "FAIL"): "the loss is shown to exceed the margin",
    ("accuracy", "INCONCLUSIVE"): "a loss of the margin is neither excluded nor shown",
    ("tokens", "PASS"): "the saving is shown to reach the limit",
    ("tokens", "FAIL"): "the saving is shown to miss the limit",
    ("tokens", "INCONCLUSIVE"): "whether the saving reaches the limit is not shown",
    ("rate", "PASS"): "the observed rate is within the limit",
    ("rate", "FAIL"): "the rate is shown to be above the limit",
    ("rate", "INCONCLUSIVE"): "the observed rate is above the limit, the true one is not shown to be",
}


def printable(text: str) -> str:
    """One line that every terminal, page and XML parser takes: line ends, escapes and half characters as \\n, \\x1b, ..."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def headline(result: Result) -> str:
    """The whole result in one sentence."""
    verdict = result["verdict"]
    if verdict == "ERROR":
        return f"ERROR: nothing was decided. {printable(result['message'])}"
    broken = [
        f"{printable(benchmark['name'])} ({WHAT[each['criterion']]})"
        for benchmark in result["benchmarks"]
        for each in benchmark["criteria"]
        if each["verdict"] == verdict and benchmark["tier"] in GATING
    ]
    against = f"against {printable(result['baseline']['name'])}"
    if verdict == "FAIL":
        return f"FAIL: a regression {against} is shown: {', '.join(broken)}"
    if verdict == "PASS":
        return f"PASS: no regression {against}, and every deciding benchmark is within its limits"
    return f"INCONCLUSIVE: no regression {against} is shown, but not every limit is shown to hold"


def sentence(benchmark: Mapping[str, Any], criterion: Mapping[str, Any]) -> str:
    """One criterion for people: what was found, what was allowed, what follows."""
    row, kind = _row(benchmark, criterion), criterion["criterion"]
    meaning = MEANING[kind if kind in ("accuracy", "tokens") else "rate", criterion["verdict"]]
    text = f"{row['what']} {row['observed']}, limit {row['limit']}: {meaning}"
    if kind == "accuracy" and criterion["verdict"] == "INCONCLUSIVE":
        text += f" ({benchmark['num_questions']:,} questions exclude losses from {_effect(benchmark)} points on)"
    return f"{text} (p = {criterion['p_adjusted']:.2g})" if criterion["verdict"] == "FAIL" else text


def rows(result: Result) -> Iterator[Row]:
    """One dict of cells per criterion, in the order of the result."""
    for benchmark in result["benchmarks"]:
        for criterion in benchmark["criteria"]:
            yield _row(benchmark, criterion)
        if not benchmark["criteria"]:
            empty = dict.fromkeys(COLUMNS, "")
            yield empty | {**_names(benchmark), "observed": "not measured", "verdict": benchmark["verdict"]}


def notes(result: Result) -> list[str]:
    """Sentences under the table."""
    if result["verdict"] == "ERROR":
        return []
    policy, unit = result["policy"], result["length_unit"]
    counted = f" Lengths are counted in {unit}." if unit != "tokens" else ""
    return [
        *map(printable, result["notes"]),
        *(f"Mismatch, compared all the same: {printable(text)}" for text in result["mismatches"]),
        f"Accuracy: difference in points with one-sided bounds at {policy['alpha']:g}. Fewer tokens: share of the baseline's "
        f"with its {100 * policy['confidence']:g} % interval.{counted} A FAIL holds over all gating benchmarks (Holm).",
    ]


def render(result: Result, *, console: Console) -> None:
    """Headline, table and notes."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(headline(result), STYLES[result["verdict"]]), soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in COLUMNS if name not in ("before", "after") or console.width >= 100]
    for name in shown:
        table.add_column(name, overflow="fold", no_wrap=name == "verdict")
    for row in rows(result):
        table.add_row(*(Text(row[name], STYLES[row[name]] if name == "verdict" else "") for name in shown))
    if table.row_count:
        console.print(table)
    for note in notes(result):
        console.print(Text(note))


def markdown(result: Result) -> str:
    """The same as GitHub-flavoured Markdown, ending with a newline."""
    lines = [f"**{_escaped(headline(result))}**", ""]
    if result["benchmarks"]:
        lines += [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
        lines += [_line([_escaped(row[name]) for name in COLUMNS]) for row in rows(result)] + [""]
    return "\n".join(lines + [f"- {_escaped(note)}" for note in notes(result)]) + "\n"


def junit(result: Result) -> str:
    """A test case per benchmark and criterion: failure for a regression that counts, skipped for what decides nothing."""
    from xml.etree import ElementTree as Xml

    cases = [
        _case(f"{benchmark['tier']}.{printable(benchmark['name'])}", *each)
        for benchmark in result["benchmarks"]
        for each in _outcomes(benchmark)
    ]
    if result["verdict"] == "ERROR":
        cases.append(_case("tldr", "check", "error", printable(result["message"])))
    counts = {"tests": str(len(cases))}
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        counts[name] = str(sum(case.find(kind) is not None for case in cases))
    root = Xml.Element("testsuites", {"name": "tldr check", **counts})
    suite = Xml.SubElement(root, "testsuite", {"name": "tldr check", **counts})
    suite.extend(cases)
    Xml.SubElement(suite, "system-out").text = "\n".join([headline(result), *notes(result)])
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def github_commands(result: Result) -> list[str]:
    """Workflow commands of GitHub Actions: an error per regression that counts, a warning for the rest but PASS."""
    if result["verdict"] == "ERROR":
        return [_command("error", "tldr check", headline(result))]
    found = [
        ("error" if kind == "failure" else "warning", printable(benchmark["name"]), message)
        for benchmark in result["benchmarks"]
        for _, kind, message in _outcomes(benchmark)
        if kind is not None
    ]
    return [_command(*each) for each in sorted(found, key=lambda each: each[0])]


def _case(suite: str, name: str, kind: str | None, message: str) -> Element:
    from xml.etree import ElementTree as Xml

    case = Xml.Element("testcase", {"classname": suite, "name": name})
    if kind is not None:
        Xml.SubElement(case, kind, {"message": message}).text = message
    return case


def _outcomes(benchmark: Mapping[str, Any]) -> Iterator[tuple[str, str | None, str]]:
    """Name, JUnit element (None: passed) and message of every test case of a benchmark."""
    if not benchmark["criteria"]:
        yield "measured", "skipped", NOT_MEASURED
    for each in benchmark["criteria"]:
        failed = each["verdict"] == "FAIL" and benchmark["tier"] in GATING
        kind = None if each["verdict"] == "PASS" else "failure" if failed else "skipped"
        yield each["criterion"], kind, f"{each['verdict']} ({_tier(benchmark)}): {sentence(benchmark, each)}"


def _names(benchmark: Mapping[str, Any]) -> Row:
    return {"benchmark": printable(benchmark["name"]), "tier": _tier(benchmark)}


def _tier(benchmark: Mapping[str, Any]) -> str:
    return str(benchmark["tier"]).replace("_", "-")


def _row(benchmark: Mapping[str, Any], criterion: Mapping[str, Any]) -> Row:
    kind, bounds = criterion["criterion"], criterion["bounds"]
    digits = 1 if kind == "tokens" else 2
    sign = "+" if kind == "accuracy" else ""
    values = [criterion["observed"], *(bounds or [])]
    observed, *around = ["n/a" if value is None else f"{100 * value:{sign}.{digits}f}" for value in values]
    between = f" [{', '.join(around)}]" if around else ""
    unit = "points" if kind == "accuracy" else "%"
    before, after = (criterion[side] for side in ("baseline", "candidate"))
    sides = [f"{value:,.1f}" if kind == "tokens" else f"{100 * value:.2f} %" for value in (before, after)]
    at = "≥" if kind in ("accuracy", "tokens") else "≤"
    return {
        **_names(benchmark),
        "what": WHAT[kind],
        "before": sides[0],
        "after": sides[1],
        "observed": f"{observed}{between} {unit}",
        "limit": f"{at} {100 * criterion['limit']:{sign}g} {unit}",
        "verdict": criterion["verdict"],
    }


def _effect(benchmark: Mapping[str, Any]) -> str:
    effect = benchmark["minimum_detectable_effect"]
    return "n/a" if effect is None else f"{100 * effect:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Without the signs by which Markdown or HTML would take a name for markup, and without a mention of anybody."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_[]<>|~#" else sign for sign in text)
    return escaped.replace("&", "&amp;").replace("@", "&#64;")


def _command(kind: str, title: str, message: str) -> str:
    """https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands: data and properties escaped."""
    data, name = (text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A") for text in (message, title))
    return f"::{kind} title={name.replace(':', '%3A').replace(',', '%2C')}::{data}"
