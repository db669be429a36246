"""`tldr fetch` as a user runs it, against a small hub on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages._params import read_yaml
from tests.cli.conftest import Tldr
from tests.toy_hub import COMMIT, OTHER_COMMIT, ToyHub, serving

MODEL, DATA, TOKEN = "org/toy-model", "datasets/org/toy-data", "hf_toyToken123"
WEIGHTS = bytes(range(256)) * 4000
FILES = {
    "config.json": b'{"model_type": "toy"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "modeling_toy.py": b"code",
    "README.md": b"card",
    "onnx/model.safetensors": b"other",
}
ROWS = b'{"id": "1"}\n'
ROWS_DIGEST = hashlib.sha256(ROWS).hexdigest()
DATA_FILE = {
    "repo": "org/toy-data",
    "revision": COMMIT,
    "file": "main/test.jsonl",
    "sha256": None,
    "path": "data/toy.jsonl",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyHub]:
    """The environment of every call: this hub, no home of the user's, and offline as a stage's would be."""
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "TLDR_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with serving({MODEL: {**FILES, **UNWANTED}, DATA: {"main/test.jsonl": ROWS, "main/other.jsonl": ROWS}}) as toy:
        monkeypatch.setenv("HF_ENDPOINT", toy.url)
        yield toy


def declare(
    checkout: Path, *, model: dict[str, Any] | None = None, data: tuple[dict[str, Any], ...] = (), **keys: str
) -> None:
    """Write the fetch block; model.path becomes models/toy. `keys`: text to replace in params.yaml, such as engine."""
    path = checkout / "params.yaml"
    before, _, after = path.read_text().partition("\nfetch:")
    before = before.replace("path: models/tiny ", "path: models/toy ")
    for name, value in keys.items():
        before = before.replace(f"{name}: ", f"{name}: {value} #", 1)
    block = {"model": model, "short_model": None, "data": list(data) or None}
    path.write_text(f"{before}\nfetch: {json.dumps(block)}\n{after[after.index('tiny:') :]}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(answer: subprocess.CompletedProcess[str], part: str, code: int = 2) -> None:
    assert (answer.returncode, answer.stdout) == (code, ""), answer.stderr
    assert part in answer.stderr
    assert [line[:7] for line in answer.stderr.splitlines() if line[:7] in ("Error: ", "Traceba")] == ["Error: "]


def test_without_pins_everything_is_in_the_checkout(checkout: Path, hub: ToyHub, tldr: Tldr) -> None:
    answer = tldr("fetch")
    assert (answer.returncode, answer.stderr, hub.requests) == (0, "", [])
    assert "everything is in the checkout" in answer.stdout
    assert tldr("fetch", "--json").stdout == "[]\n"


def test_pins_are_fetched_once_with_a_token_that_stays_secret(
    checkout: Path, hub: ToyHub, tldr: Tldr, tmp_path: Path
) -> None:
    declare(checkout, model={"repo": MODEL, "revision": COMMIT}, data=(DATA_FILE,))
    hub.gated[MODEL] = 401
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o640)
    first = tldr("fetch", "--token-file", str(token), HF_TOKEN="hf_fromEnvironment", HF_DEBUG="1", TLDR_DEBUG="1")
    assert first.returncode == 0, first.stderr
    assert contents(checkout / "models" / "toy") == FILES
    assert (checkout / "data" / "toy.jsonl").read_bytes() == ROWS
    assert {request.token for request in hub.requests} == {f"Bearer {TOKEN}"}
    written = [*contents(checkout).values(), *contents(tmp_path / "home").values()]
    assert not any(b"hf_" + word in content for content in written for word in (b"toyToken", b"fromEnv"))
    assert "hf_toy" not in first.stdout + first.stderr and "hf_from" not in first.stdout + first.stderr
    assert "The token in the environment is ignored" in first.stderr
    assert f"Warning: others can read {token}" in first.stderr
    assert f"set its sha256 to {ROWS_DIGEST}" in first.stdout
    hub.server.shutdown()
    hub.server.server_close()
    second = tldr("fetch", "--json")
    assert second.returncode == 0, second.stderr
    rows = json.loads(second.stdout)
    assert [(row["path"], row["outcome"]) for row in rows] == [
        ("models/toy", "is there"),
        ("data/toy.jsonl", "is there"),
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_stopped_download_goes_on(checkout: Path, hub: ToyHub, tldr: Tldr, number: signal.Signals, code: int) -> None:
    declare(checkout, model={"repo": MODEL, "revision": COMMIT})
    hub.stalls.add("model.safetensors")
    with subprocess.Popen([sys.executable, "-m", "stages", "fetch"], stderr=subprocess.DEVNULL) as process:
        assert hub.half_sent.wait(120)
        finished = checkout / ".tldr" / "fetch"
        end = time.monotonic() + 120
        while len(list(finished.rglob("*.metadata"))) < len(FILES) - 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == code
    assert not (checkout / "models").exists() or not list((checkout / "models").iterdir())
    hub.stalls.clear()
    hub.requests.clear()
    again = tldr("fetch")
    assert again.returncode == 0, again.stderr
    assert hub.asked_for("GET") == hub.asked_for("HEAD") == ["model.safetensors"]
    assert contents(checkout / "models" / "toy") == FILES
    assert {Path(name).name for name in contents(checkout / ".tldr")} == {"lock", "record.json"}


def test_a_broken_connection_is_taken_up_inside_the_file(checkout: Path, hub: ToyHub, tldr: Tldr) -> None:
    """The hub keeps what it has of a file in steps of 10 MiB."""
    declare(checkout, model={"repo": MODEL, "revision": COMMIT})
    hub.files[MODEL] = {**FILES, "model.safetensors": WEIGHTS * 24}
    hub.breaks.add("model.safetensors")
    assert tldr("fetch").returncode == 0
    assert contents(checkout / "models" / "toy") == hub.files[MODEL]
    assert [call.first_byte for call in hub.requests if call.first_byte is not None] == [str(10 * 2**20)]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_noticed_and_fetched_again(checkout: Path, hub: ToyHub, tldr: Tldr, name: str) -> None:
    """The hub's client compares sizes only."""
    declare(checkout, model={"repo": MODEL, "revision": COMMIT})
    hub.sent_instead[name] = bytes(len(FILES[name]))
    refused(tldr("fetch"), f"{name} of org/toy-model@01234567 arrived damaged; run the same command again", code=1)
    assert not (checkout / "models" / "toy").exists()
    hub.sent_instead.clear()
    hub.requests.clear()
    assert tldr("fetch").returncode == 0
    assert contents(checkout / "models" / "toy") == FILES
    assert hub.asked_for("GET") == [name]


def test_a_dry_run_downloads_nothing(checkout: Path, hub: ToyHub, tldr: Tldr) -> None:
    declare(checkout, model={"repo": MODEL, "revision": COMMIT}, data=(DATA_FILE,))
    before = contents(checkout)
    answer = tldr("fetch", "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert "models/toy would be fetched (missing) (org/toy-model@01234567), 4 files" in answer.stdout
    assert hub.asked_for("GET") == hub.asked_for("HEAD") == []
    assert {name: content for name, content in contents(checkout).items() if "__pycache__" not in name} == before


def test_a_lacking_file_is_fetched_again_and_another_commit_replaces(checkout: Path, hub: ToyHub, tldr: Tldr) -> None:
    declare(
        checkout,
        model={"repo": MODEL, "revision": COMMIT},
        data=({**DATA_FILE, "sha256": ROWS_DIGEST},),
    )
    assert tldr("fetch").returncode == 0
    folder = checkout / "models" / "toy"
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").write_bytes(b"{")
    hub.requests.clear()
    assert tldr("fetch").returncode == 0
    assert contents(folder) == FILES
    assert "model.safetensors" not in hub.asked_for("GET")
    declare(checkout, model={"repo": MODEL, "revision": OTHER_COMMIT})
    hub.files[MODEL] = {"config.json": b"{}", "model.safetensors": b"new"}
    assert tldr("fetch").returncode == 0
    assert contents(folder) == hub.files[MODEL]
    (folder / "config.json").write_bytes(b"{ }")
    refused(tldr("fetch"), "models/toy was changed after it was fetched (config.json); move it away")


ABSENT = {"repo": "org/absent", "revision": COMMIT}
UNKNOWN = {"repo": MODEL, "revision": "f" * 40}


@pytest.mark.parametrize(
    ("pins", "part"),
    [
        (
            {"model": {"repo": MODEL, "revision": "main"}},
            "fetch.model.revision = 'main': must be a full commit of 40 hex",
        ),
        ({"model": ABSENT}, "shows no repository org/absent: correct fetch.model.repo"),
        ({"model": UNKNOWN}, f"org/toy-model has no commit {'f' * 40}"),
        ({"model": {"repo": "org/pickles", "revision": COMMIT}}, "org/pickles@01234567 holds no *.safetensors file"),
        ({"model": {"repo": "org/gated", "revision": COMMIT}}, "org/gated is gated: accept its licence"),
        ({"data": ({**DATA_FILE, "file": "main/nosuch"},)}, "org/toy-data@01234567 has no file main/nosuch"),
        ({"data": ({**DATA_FILE, "sha256": "0" * 64},)}, f"fetch.data.0.sha256 pins {'0' * 64}"),
        (
            {"data": ({**DATA_FILE, "path": "../x"},)},
            "fetch.data.0.path = '../x': must be a relative path that stays inside",
        ),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    checkout: Path, hub: ToyHub, tldr: Tldr, pins: dict[str, Any], part: str
) -> None:
    hub.files |= {"org/pickles": UNWANTED, "org/gated": FILES}
    hub.gated["org/gated"] = 403
    declare(checkout, **pins)
    refused(tldr("fetch"), part)
    assert not (checkout / "models" / "toy").exists()
    assert not (checkout / "data" / "toy.jsonl").exists()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://127.0.0.1:{port}"])
def test_without_a_hub_the_call_fails_and_can_be_repeated(
    checkout: Path, hub: ToyHub, tldr: Tldr, endpoint: str
) -> None:
    declare(checkout, model={"repo": MODEL, "revision": COMMIT})
    if "port" in endpoint:
        hub.answer = send_page  # type: ignore[method-assign]
    answer = tldr("fetch", HF_ENDPOINT=endpoint.format(port=hub.server.server_port))
    refused(answer, "check the network, then run the same command again", code=1)


def send_page(call: Any) -> None:
    from tests.toy_hub import send

    send(call, 200, {"Content-Type": "text/html"}, b"<html>Sign in to this network</html>")


def test_a_folder_that_was_not_fetched_is_left_alone(checkout: Path, hub: ToyHub, tldr: Tldr) -> None:
    declare(checkout, model={"repo": MODEL, "revision": COMMIT}, data=(DATA_FILE,))
    (checkout / "models" / "toy").mkdir(parents=True)
    (checkout / "models" / "toy" / "config.json").write_text("mine")
    refused(tldr("fetch"), "models/toy exists and `tldr fetch` did not make it; move it away")
    assert hub.requests == [] and not (checkout / "data").exists()
    assert (checkout / "models" / "toy" / "config.json").read_text() == "mine"


def test_a_token_file_is_found_and_its_text_never_shown(
    checkout: Path, hub: ToyHub, tldr: Tldr, tmp_path: Path
) -> None:
    declare(checkout, data=(DATA_FILE,))
    named = tmp_path / "named"
    refused(tldr("fetch", HF_TOKEN_PATH=str(named)), "HF_TOKEN_PATH names")
    named.write_text("two words")
    named.chmod(0o600)
    answer = tldr("fetch", HF_TOKEN_PATH=str(named))
    refused(answer, f"{named} does not hold a token")
    assert "words" not in answer.stderr and "Warning" not in answer.stderr
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    assert tldr("fetch").returncode == 0
    assert {request.token for request in hub.requests} == {f"Bearer {TOKEN}"}


def test_two_calls_at_once_are_refused(checkout: Path, hub: ToyHub, tldr: Tldr) -> None:
    declare(checkout, data=(DATA_FILE,))
    lock = checkout / ".tldr" / "fetch" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        refused(tldr("fetch"), "Another `tldr fetch` is at work")


def test_with_a_container_engine_it_runs_there(checkout: Path, hub: ToyHub, tldr: Tldr, tmp_path: Path) -> None:
    declare(checkout, data=(DATA_FILE,), engine="docker")
    (checkout / "containers").mkdir(exist_ok=True)
    (checkout / "containers" / "run.py").write_text(
        "def run_fetch(root, params, arguments, token_file):\n    print(root.name, arguments, token_file.name)\n    return 7\n"
    )
    (tmp_path / "token").write_text(TOKEN)
    answer = tldr("fetch", "--dry-run", "--json", "--token-file", str(tmp_path / "token"))
    assert (answer.returncode, answer.stdout) == (7, "checkout ['--dry-run', '--json'] token\n")
    inside = tldr("fetch", TLDR_CONTAINER="docker")
    assert inside.returncode == 0, inside.stderr
    assert contents(checkout / "data") == {"toy.jsonl": ROWS}


INSTRUCTION = "Put your answer in a box."


def questions(*pairs: tuple[str, str]) -> bytes:
    return "".join(json.dumps({"q": question, "a": answer}) + "\n" for question, answer in pairs).encode()


PUBLISHED = {
    "easy.jsonl": questions(("What is 2 + 2?", "4"), ("What is 3 + 3?", "6")),
    "hard.jsonl": questions(("What is the cube of 7?", "343")),
    "control.jsonl": questions(("What is the cube of 7?", "343"), ("What is the cube of 6?", "216")),
}


@pytest.fixture
def sources(checkout: Path, hub: ToyHub) -> Path:
    """data/sources.yaml with three files, two on the hub and one at an address; params.yaml names their sets."""
    hub.files[DATA] |= {f"main/{name}": content for name, content in PUBLISHED.items()}
    files: dict[str, Any] = {
        name.removesuffix(".jsonl"): {
            "path": f"data/published/{name}",
            "hub": {"repo": "org/toy-data", "file": f"main/{name}", "revision": COMMIT},
            "sha256": None,
            "licence": "MIT",
        }
        for name in PUBLISHED
    }
    del files["control"]["hub"]
    address = f"{hub.url}/{DATA}/resolve/{COMMIT}/main/control.jsonl"
    files["control"] |= {"url": address, "sha256": hashlib.sha256(PUBLISHED["control.jsonl"]).hexdigest()}
    read = {"columns": {"question": "q", "gold": "a"}, "gold_format": "integer"}
    roles = {"system1": "easy", "system2": "hard", "control": "control"}
    sets = {f"data/sets/{role}.jsonl": {"role": role, "file": name, **read} for role, name in roles.items()}
    (checkout / "data").mkdir()
    document = {"instruction": INSTRUCTION, "files": files, "sets": sets}
    (checkout / "data" / "sources.yaml").write_text(json.dumps(document, indent=1))
    text = (checkout / "params.yaml").read_text()
    for role in roles:
        text = text.replace(f"data/tiny/{role}.jsonl", f"data/sets/{role}.jsonl")
    (checkout / "params.yaml").write_text(text)
    return checkout / "data"


def test_published_files_become_problem_sets(sources: Path, hub: ToyHub, tldr: Tldr) -> None:
    first = tldr("fetch")
    assert first.returncode == 0, first.stderr
    assert {path.name: path.read_bytes() for path in (sources / "published").iterdir()} == PUBLISHED
    assert (
        "data.control: data/sets/control.jsonl made, 1 of 2 problems\n  1 removed, the same as in system2"
        in first.stdout
    )
    assert "data.system1: data/sets/system1.jsonl made, 2 of 2 problems" in first.stdout
    (left,) = (sources / "sets" / "control.jsonl").read_text().splitlines()
    assert json.loads(left)["prompt"] == f"What is the cube of 6?\n{INSTRUCTION}"
    hub.server.shutdown()
    hub.server.server_close()
    before = contents(sources)
    second = tldr("fetch", "--json")
    assert second.returncode == 0, second.stderr
    assert {row["outcome"] for row in json.loads(second.stdout)} == {"is there"} and contents(sources) == before


def test_local_copies_take_the_place_of_the_network(sources: Path, hub: ToyHub, tldr: Tldr, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    (copies / "org" / "toy-data" / "main").mkdir(parents=True)
    (copies / "control.jsonl").write_bytes(PUBLISHED["control.jsonl"])
    refused(
        tldr("fetch", "--from", str(copies)),
        "has no easy.jsonl (org/toy-data), hard.jsonl (org/toy-data); put them there",
    )
    assert not (sources / "published").exists()
    (copies / "easy.jsonl").write_bytes(PUBLISHED["easy.jsonl"])
    (copies / "org" / "toy-data" / "main" / "hard.jsonl").write_bytes(PUBLISHED["hard.jsonl"])
    answer = tldr("fetch", "--from", str(copies))
    assert answer.returncode == 0, answer.stderr
    assert f"files.easy: data/published/easy.jsonl taken from {copies}/easy.jsonl" in answer.stdout
    assert {path.name: path.read_bytes() for path in (sources / "published").iterdir()} == PUBLISHED
    assert hub.requests == []
    again = tldr("fetch", HF_ENDPOINT="http://127.0.0.1:9")
    assert again.returncode == 0 and "is there" in again.stdout, again.stderr


def test_a_local_copy_of_other_contents_is_refused(sources: Path, tldr: Tldr, tmp_path: Path) -> None:
    for name in PUBLISHED:
        (tmp_path / name).write_bytes(b'{"q": "What is 1 + 1?", "a": "2"}\n')
    refused(tldr("fetch", "--from", str(tmp_path)), "and files.control.sha256 pins")
    assert not (sources / "published" / "control.jsonl").exists() and not (sources / "sets").exists()


def test_what_has_no_revision_yet_is_pinned_by_the_lock_only(sources: Path, hub: ToyHub, tldr: Tldr) -> None:
    text = (sources / "sources.yaml").read_text()
    (sources / "sources.yaml").write_text(text.replace(f'"revision": "{COMMIT}"', '"revision": null', 1))
    refused(tldr("fetch"), "names no revision for files.easy (org/toy-data); run `tldr fetch --lock`")
    assert hub.requests == []
    locked = tldr("fetch", "--lock")
    assert locked.returncode == 0, locked.stderr
    assert "wrote files.easy.revision, files.easy.sha256, files.hard.sha256" in locked.stderr
    written = read_yaml(sources / "sources.yaml")["files"]
    assert written["easy"]["hub"]["revision"] == COMMIT
    assert written["easy"]["sha256"] == hashlib.sha256(PUBLISHED["easy.jsonl"]).hexdigest()
    plain = tldr("fetch", HF_ENDPOINT="http://127.0.0.1:9")
    assert plain.returncode == 0, plain.stderr
    assert "nothing was missing" in tldr("fetch", "--lock").stderr


def test_a_file_at_an_address_goes_on_inside_and_is_checked(sources: Path, hub: ToyHub, tldr: Tldr) -> None:
    name = "main/control.jsonl"
    hub.breaks.add(name)
    broken = tldr("fetch")
    assert broken.returncode == 1 and "cannot be downloaded from 127.0.0.1" in broken.stderr, broken.stderr
    assert not (sources / "published" / "control.jsonl").exists()
    hub.requests.clear()
    assert tldr("fetch").returncode == 0
    (skipped,) = [r.first_byte for r in hub.requests if r.method == "GET" and r.path.endswith(name)]
    assert skipped is not None and int(skipped) > 0, "what had arrived is not asked for again"
    assert (sources / "published" / "control.jsonl").read_bytes() == PUBLISHED["control.jsonl"]


def test_a_file_at_an_address_that_is_gone_or_changed_is_refused(sources: Path, hub: ToyHub, tldr: Tldr) -> None:
    hub.sent_instead["main/control.jsonl"] = PUBLISHED["control.jsonl"].replace(b"343", b"344")
    damaged = tldr("fetch")
    assert damaged.returncode == 1 and "arrived damaged" in damaged.stderr
    text = (sources / "sources.yaml").read_text()
    (sources / "sources.yaml").write_text(text.replace(f"{hub.url}/{DATA}", f"{hub.url}/datasets/org/gone"))
    refused_now = tldr("fetch")
    assert refused_now.returncode == 2 and "is not there (status 404); correct files.control.url" in refused_now.stderr
    assert not (sources / "sets").exists()
