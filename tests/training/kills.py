"""Training in processes that kill themselves: `python -m tests.training.kills FOLDER N RANK:EVENT...`.

FOLDER is a toy checkout; N processes train in it (over gloo), forked after the imports, which take longer than the training.
In attempt i the process RANK sends itself SIGKILL at its EVENT-th file operation in the work folder (then the others are
killed, as torchrun would); a last attempt is left alone. Prints, as JSON, the file operations of each process in the last
attempt, and how every attempt ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


def main(root: Path, world_size: int, kills: list[tuple[int, int]]) -> None:
    from stages.cli.run import ENVIRONMENT

    os.environ.update({**ENVIRONMENT, "ACCELERATE_TORCH_DEVICE": "cpu"})
    import stages.training.control_loop
    import stages.training.snapshot  # noqa: F401 - the same

    work = root / ".tldr" / "work" / "train" / "fingerprint"
    work.mkdir(parents=True, exist_ok=True)
    ends = []
    for attempt in [*kills, (0, 0)]:
        ends.append(_attempt(root, work, world_size, *attempt))
    counts = [int((root / f"events-{rank}").read_text()) for rank in range(world_size)]
    print(json.dumps({"ends": ends, "events": counts}))


def _attempt(root: Path, work: Path, world_size: int, doomed: int, event: int) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            _train(root, work, world_size, rank, event if rank == doomed else 0, port)
        children.append(child)
    codes: dict[int, int] = {}
    while len(codes) < world_size:
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child] != 0:
            for other in set(children) - codes.keys():
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def _train(root: Path, work: Path, world_size: int, rank: int, event: int, port: int) -> None:
    from stages._params import load_params
    from stages.training.inputs import read_inputs
    from stages.training.session import train

    if world_size > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    count = 0

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if name in EVENTS and str(work) in str(arguments[0]):
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    params = load_params(root)
    try:
        train(params, read_inputs(root, params), work)
    except BaseException:  # noqa: BLE001 - a fork must not go on with the parent's work
        import traceback

        traceback.print_exc()
        os._exit(1)
    (root / f"events-{rank}").write_text(str(count))
    os._exit(0)


if __name__ == "__main__":
    wanted = [tuple(int(part) for part in text.split(":")) for text in sys.argv[3:]]
    main(Path(sys.argv[1]), int(sys.argv[2]), [(rank, event) for rank, event in wanted])
