"""What lm-evaluation-harness writes with `--log_samples`: samples_<task>_<date>.jsonl, results_<date>.json beside it.

Reads those files; writes nothing. One line is one question after one of the task's filters (lm-eval 0.4.13, evaluator.py
and loggers/evaluation_tracker.py):

    doc_id, doc           number and record of the question; our own problem files have their own ids
    arguments             {gen_args_0: {arg_0: prompt, arg_1: generation settings}}
    resps                 [[answer, ...]], one list for the one request of a generative task
    filter, metrics       the filter of this line; the names of its scores, each of which is a field
    doc_hash              of the question as the data set gives it

Of several filters the first counts, of several metrics too. Its score is 0 or 1, or a list of them with one per answer.
There are no token counts, so lengths are words, and nothing says how an answer ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages._errors import UserError
from stages.data.conditions import prompts_digest, sample_prompt, scorer, version
from stages.data.evaluations.graded import num_words
from stages.data.evaluations.lines import Row, json_rows, kind, shown
from stages.data.evaluations.lm_eval_results import read_results
from stages.data.evaluations.run import Key, Shape, Trace
from stages.data.evaluations.source import Source
from stages.data.lm_eval_output import OWN_FIELDS, document_id
from stages.data.lm_eval_tasks import has_thought
from stages.evidence.comparability import Conditions
from stages.evidence.questions import QuestionRow

FIELDS = {"doc_id": int, "doc": dict, "arguments": dict, "resps": list, "filter": str, "metrics": list}
NUMBERS = {"temperature": "temperature", "top_p": "top_p", "max_gen_toks": "max_tokens"}  # lm-eval's names and ours


@dataclass
class LoggedTask:
    """One file, and what was found in it: the first filter and metric, the questions, how the answers were drawn."""

    task: str
    source: Source
    results: Source | None
    filter: str = ""
    metric: str = ""
    others: set[str] = field(default_factory=set)
    lines: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    decode: dict[str, Any] = field(default_factory=dict)


class SampleReader:
    """A `Reader` of the files of one run, one per task; `name` is what the user calls it."""

    def __init__(self, name: str, files: Sequence[LoggedTask]) -> None:
        self._name, self._files = name, files

    def rows(self) -> Iterator[QuestionRow]:
        for file in self._files:
            for place, number, record in _first_filter(file):
                question_id = _question_id(record)
                earlier = file.lines.setdefault(question_id, number)
                if earlier != number:
                    raise UserError(
                        f"{place}, field doc_id: question {question_id} is already on line {earlier}; take the file from one "
                        "run."
                    )
                answers = _answers(place, record)
                verdicts = _verdicts(place, file, record, len(answers))
                _note_conditions(file, record)
                for index, (text, correct) in enumerate(zip(answers, verdicts, strict=True)):
                    thinks = has_thought(text, "stop")
                    yield QuestionRow(file.task, "", question_id, index, correct, num_words(text), False, not thinks)

    def conditions(self, shapes: Mapping[str, Shape]) -> Conditions:
        results = {file.task: read_results(file.results) if file.results else {} for file in self._files}
        names = {
            str(found.get("model_name") or found.get("config", {}).get("model_args")) for found in results.values()
        }
        versions = {task: version(found, task) for task, found in results.items()}
        return Conditions(
            length_unit="words",
            model=names.pop() if len(names) == 1 and "None" not in names else None,
            versions={task: found for task, found in versions.items() if found is not None},
            prompts={file.task: prompts_digest(file.prompts.items()) for file in self._files if file.prompts},
            task_decode={file.task: file.decode | _instruction(results[file.task]) for file in self._files},
            task_verifier={file.task: scorer(file.metric, file.filter) for file in self._files},
        )

    def notes(self) -> list[str]:
        notes = [
            f"{self._name}: lm-eval does not say how answers ended: those that were cut off are not counted as truncated.",
            f"{self._name}: lm-eval logs no token counts: lengths are words.",
        ]
        for file in self._files:
            if file.others:
                others = ", ".join(sorted(file.others))
                notes.append(
                    f"{file.source.name}: verdicts are those of the first filter, {file.filter} (not {others})."
                )
        return notes

    def refusal(self, error: ValueError) -> str:
        return f"{self._name}: {error}; take the files from one run."

    def texts(self, keys: Collection[Key]) -> dict[Key, Trace]:
        found = {}
        for file in self._files:
            for place, _, record in _first_filter(file):
                question_id = _question_id(record)
                for index, text in enumerate(_answers(place, record)):
                    if (file.task, question_id, index) in keys:
                        found[file.task, question_id, index] = _trace(record, text)
        return found


def _first_filter(file: LoggedTask) -> Iterator[tuple[str, int, Row]]:
    """(place, line, record) of the lines after the first filter that the file names."""
    file.filter = ""
    for number, record in json_rows(file.source, allow_nan=True):
        place = f"{file.source.name}, line {number}"
        for name, wanted in FIELDS.items():
            if type(record.get(name)) is not wanted:
                found = f"a {kind(record[name])}" if name in record else "missing"
                raise UserError(f"{place}, field {name}: {found}; name a file that lm-eval wrote with --log_samples.")
        file.filter = file.filter or record["filter"]
        if record["filter"] == file.filter:
            yield place, number, record
        else:
            file.others.add(record["filter"])


def _question_id(record: Row) -> str:
    return document_id(record["doc"], record["doc_id"])


def _answers(place: str, record: Row) -> list[str]:
    """The answers to the one request of a generative task."""
    requests = record["resps"]
    if len(requests) != 1 or type(requests[0]) is not list or not all(type(text) is str for text in requests[0]):
        raise UserError(
            f"{place}, field resps: no list of generated answers; a task that compares likelihoods has no answers whose "
            "length could be compared, leave its file out."
        )
    if not requests[0]:
        raise UserError(f"{place}, field resps: no answer; take the file from the run anew.")
    answers: list[str] = requests[0]
    return answers


def _verdicts(place: str, file: LoggedTask, record: Row, num_answers: int) -> list[bool]:
    """One per answer, by the task's first metric."""
    file.metric = file.metric or str(next(iter(record["metrics"]), ""))
    if file.metric not in record:
        raise UserError(f"{place}, field {file.metric or 'metrics'}: missing; take the file from the run anew.")
    score = record[file.metric]
    scores = score if type(score) is list else [score]
    if not scores or not all(type(each) in (int, float, bool) and each in (0, 1) for each in scores):
        raise UserError(
            f"{place}, field {file.metric}: {shown(score)} is neither 0 nor 1, so no answer is right or wrong by it; leave "
            "this task out."
        )
    if len(scores) != num_answers:
        raise UserError(
            f"{place}, field {file.metric}: {len(scores)} score for {num_answers} answers, which are judged as one; leave "
            "this task out, or run it with one answer to each question."
        )
    return [bool(each) for each in scores]


def _note_conditions(file: LoggedTask, record: Row) -> None:
    if type(record.get("doc_hash")) is str or record["doc"].keys() >= OWN_FIELDS:
        question_id, found = sample_prompt(record)
        file.prompts[question_id] = found
    if not file.decode:
        settings = _argument(record, "arg_1")
        file.decode = _decode(settings) if isinstance(settings, dict) else {}


def _argument(record: Row, name: str) -> Any:
    first = record["arguments"].get("gen_args_0")
    return first.get(name) if isinstance(first, dict) else None


def _decode(settings: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's generation settings under our names; sampling that is switched off is temperature 0."""
    found = {ours: settings[theirs] for theirs, ours in NUMBERS.items() if settings.get(theirs) is not None}
    if settings.get("do_sample") is False:
        found.setdefault("temperature", 0.0)
    stops = settings.get("until")
    return found | ({} if stops is None else {"until": stops})


def _instruction(results: Mapping[str, Any]) -> dict[str, Any]:
    """The digest that lm-eval gives of a system prompt, None for none; empty where the results do not say."""
    key = "system_instruction_sha"
    return {"system_instruction": results[key] and str(results[key])[:16]} if key in results else {}


def _trace(record: Row, text: str) -> Trace:
    doc, filtered = record["doc"], record.get("filtered_resps")
    own = doc.keys() >= OWN_FIELDS
    asked = doc["prompt"] if own else _argument(record, "arg_0")
    answer = filtered[0] if isinstance(filtered, list) and len(filtered) == 1 else None
    gold = doc["gold"] if own else record.get("target", "")
    return Trace(str(asked or ""), str(gold), text, answer if isinstance(answer, str) else None)
