"""One process under `accelerate launch`: `python -m stages.training.worker ROOT WORK`, started by `stages.training.launch`.

Reads WORK/params.json and what the stage `train` reads; trains in WORK and leaves there why it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from stages._errors import DISK_FULL, EXIT_BUG, EXIT_CTRL_C, EXIT_STAGE_FAILED, TldrError, is_disk_full
from stages._io import read_json
from stages._params import check_params
from stages.training.inputs import read_inputs
from stages.training.launch import PARAMS, STOP, AllFailed, AllStopped, end_with_launcher, leave_outcome
from stages.training.session import train

POLL_SECONDS = 0.2


def main(root: Path, work: Path) -> int:
    """The exit code; only the first process prints its error, the stage does so again."""
    end_with_launcher()  # torchrun leaves its workers alive when it is killed
    rank = int(os.environ["RANK"])
    if rank == 0:
        threading.Thread(target=_watch, args=(work / STOP,), daemon=True).start()
    try:
        params = check_params(read_json(work / PARAMS, "tldr run train"), PARAMS)
        train(params, read_inputs(root, params), work)
    except (AllStopped, AllFailed) as error:
        _left(work, rank, error.exit_code, str(error))  # and 0: the launcher would print a traceback of its own
    except TldrError as error:
        return _left(work, rank, error.exit_code, str(error))
    except KeyboardInterrupt:
        return _left(work, rank, EXIT_CTRL_C, "Stopped by Ctrl-C.")
    except Exception as error:  # noqa: BLE001 - whatever it was, the stage has to hear of it
        if is_disk_full(error):
            print(f"Error: {DISK_FULL}", file=sys.stderr)
            with contextlib.suppress(OSError):  # there may be no room for the reason either
                _left(work, rank, EXIT_STAGE_FAILED, DISK_FULL)
            return EXIT_STAGE_FAILED
        traceback.print_exc()
        return _left(work, rank, EXIT_BUG, f"{type(error).__name__}: {error}")
    return 0


def _left(work: Path, rank: int, code: int, message: str) -> int:
    leave_outcome(work, rank, code, message)
    return code


def _watch(stop: Path) -> None:
    """A stop that the stage asks for becomes the SIGTERM that a process alone would get."""
    pause = threading.Event()
    while not stop.exists():
        pause.wait(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
