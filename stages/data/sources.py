"""data/sources.yaml: where problem files come from, and which problem sets are made of them.

Reads that file, the YAML of tasks and params.yaml; writes revisions and digests that were found (`tldr fetch --lock`). No
network. Used by `tldr fetch`, by no stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages._errors import UserError
from stages._io import write_text
from stages._param_blocks import Block, Commit, Count, InnerPath, Sha256, Text
from stages._params import Params, read_yaml, validated
from stages.data.benchmarks import Benchmark
from stages.data.gold_answers import FORMATS
from stages.data.pins import SOURCES as FILE

SOLUTION = (
    "solution"  # a gold format of problem sets only: the boxed answer of a worked solution, or the whole of a short one
)
BENCHMARK_KEYS = ("path", "source", "columns", "gold_format")


class HubPlace(Block):
    """A file of a dataset repository on the Hugging Face hub; without a revision it has not been pinned yet."""

    repo: Annotated[str, Field(pattern=r"^([\w.-]+/)?[\w.-]+$")]
    file: InnerPath
    revision: Commit | None


class SourceFile(Block):
    """A published file, and where it lies in the checkout: on the hub, or at an address that names a commit."""

    path: InnerPath
    hub: HubPlace | None = None
    url: Annotated[str, Field(pattern="^https?://")] | None = None
    sha256: Sha256 | None
    licence: Text

    @model_validator(mode="after")
    def _one_place(self) -> SourceFile:
        if (self.hub is None) == (self.url is None):
            raise ValueError("needs either hub or url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("has a url, whose contents may change, and needs a sha256")
        return self

    @property
    def origin(self) -> str:
        """For a message."""
        return f"{self.hub.repo}, {self.hub.file}" if self.hub is not None else str(self.url)


class ProblemSet(Block):
    """A set made of one source file, or of the questions of evaluate.tasks."""

    role: Literal["system1", "system2", "control", "test"]
    file: Text | None = None
    questions_of: Literal["evaluate.tasks"] | None = None
    columns: dict[str, Any] | None = None
    gold_format: Text | None = None
    where: dict[str, str] | None = None
    num_questions: Count | None = None

    @model_validator(mode="after")
    def _is_read_somehow(self) -> ProblemSet:
        if (self.file is None) == (self.questions_of is None):
            raise ValueError("needs either file or questions_of")
        if self.file is not None:
            if self.columns is None or not {"question", "gold"} <= self.columns.keys():
                raise ValueError("needs columns with question and gold")
            if self.gold_format not in (*FORMATS, SOLUTION):
                raise ValueError(f"needs a gold_format of {', '.join((*FORMATS, SOLUTION))}")
        return self


class Sources(Block):
    """`files` by name, `sets` by the path that they are written to; `instruction` ends every prompt of a set."""

    instruction: Text
    files: dict[str, SourceFile]
    sets: dict[InnerPath, ProblemSet]

    @model_validator(mode="after")
    def _sets_name_files(self) -> Sources:
        for path, made in self.sets.items():
            if made.file is not None and made.file not in self.files:
                raise ValueError(f"sets.{path} names the file {made.file}, which is not under files")
        return self

    def at(self, path: str) -> str | None:
        """Name of the file that lies at `path`."""
        return next((name for name, file in self.files.items() if file.path == path), None)


def read_sources(root: Path) -> Sources:
    """UserError that names key, value and bound of everything that is wrong in data/sources.yaml."""
    document = read_yaml(root / FILE)
    if not isinstance(document, dict):
        raise UserError(f"{FILE} must be a mapping with the keys {', '.join(Sources.model_fields)}.")
    return validated(Sources, document, FILE)


def wanted_sets(sources: Sources, params: Params) -> dict[str, ProblemSet]:
    """The sets that params.yaml names, by path; UserError where one stands in for another role."""
    found: dict[str, ProblemSet] = {}
    for role in ("system1", "system2", "control", "test"):
        path = getattr(params.data, role).path
        made = sources.sets.get(path)
        if made is None:
            continue
        if made.role != role:
            raise UserError(
                f"data.{role}.path = {path} is the set of {made.role} in {FILE}; name the one of {role} in params.yaml."
            )
        found[path] = made
    return found


def task_benchmarks(root: Path, params: Params) -> dict[str, Benchmark]:
    """How the tasks of evaluate.tasks that read a benchmark file read it, by their names in tasks/."""
    found: dict[str, Benchmark] = {}
    for name in params.evaluate.tasks:
        path = root / "tasks" / f"{name}.yaml"
        settings = _settings(path) if path.is_file() else {}
        if set(BENCHMARK_KEYS) <= settings.keys():
            found[name] = Benchmark(
                path=root / settings["path"],
                source=settings["source"],
                columns=settings["columns"],
                gold_format=settings["gold_format"],
                where=settings.get("where") or {},
                num_questions=settings.get("num_questions"),
            )
    return found


def wanted_files(root: Path, sources: Sources, params: Params) -> list[str]:
    """Names of the files behind the sets and tasks that params.yaml names, in the order of data/sources.yaml."""
    named = {made.file for made in wanted_sets(sources, params).values()}
    for benchmark in task_benchmarks(root, params).values():
        named.add(sources.at(str(benchmark.path.relative_to(root))))
    return [name for name in sources.files if name in named]


def set_benchmark(root: Path, sources: Sources, made: ProblemSet) -> Benchmark:
    """How the one file of a set is read. A worked solution is read as it stands; its answer is found afterwards."""
    assert made.file is not None and made.columns is not None and made.gold_format is not None, "checked on load"
    file = sources.files[made.file]
    return Benchmark(
        path=root / file.path,
        source=file.origin,
        columns=made.columns,
        gold_format="latex" if made.gold_format == SOLUTION else made.gold_format,
        where=made.where or {},
        num_questions=made.num_questions,
    )


def write_lock(root: Path, found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Put the `revision` and `sha256` that were found, by file name, where data/sources.yaml has none; the keys written."""
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class WithNulls(RoundTripRepresenter):
        """Writes null where ruamel writes nothing."""

    WithNulls.add_representer(type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml = YAML()
    yaml.Representer = WithNulls
    yaml.preserve_quotes, yaml.width = True, 4096
    document = yaml.load((root / FILE).read_text(encoding="utf-8"))
    written = []
    for name, values in found.items():
        file = document["files"][name]
        for key, place in (("revision", file.get("hub")), ("sha256", file)):
            if key in values and place is not None and place.get(key) is None:
                place[key] = values[key]
                written.append(f"files.{name}.{key}")
    if written:
        text = StringIO()
        yaml.dump(document, text)
        write_text(root / FILE, text.getvalue())
    return written


def _settings(path: Path) -> dict[str, Any]:
    """dataset_kwargs of a task file; lm-eval's `!function` and what else it holds is passed over."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    document = yaml.load(path.read_text(encoding="utf-8")) or {}
    settings = document.get("dataset_kwargs") or {}
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) else str(value)
