"""A Slurm of two nodes on this machine, in a folder of its own: `python -m tests.cluster.slurm FOLDER` opens a shell in it.

Debian's slurm-wlm brings the programs; no service has to run, and none that runs is touched. Two slurmd with a name and a
port each are the nodes. Needs root, as slurmd does to start the jobs of others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stages.training.launch import end_with_parent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("node0", "node1")
SECONDS = 30.0
# cred_expire is also how long a job waits in the queue before it starts again; the other numbers are about haste as well.
CONFIG = """
ClusterName=tldr
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 Port={node0_port} CPUs=8 Gres=gpu:{num_gpus}
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1_port} CPUs=8 Gres=gpu:{num_gpus}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
PartitionName=closed Nodes=ALL State=DOWN
"""
NUM_GPUS = 8  # per node; files for devices: none is there, but the job scripts ask for some


def missing() -> str | None:
    """Why there can be no Slurm here."""
    absent = [name for name in PROGRAMS if find(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm"
    return None if os.geteuid() == 0 else "slurmd has to be started by root"


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and its like reach the cluster; AssertionError with the logs if it does not come up."""
    configure(folder)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "seed", "log")]
    daemons = {
        "munged": ["--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        "slurmctld": ["-D"],
        **{f"slurmd-{node}": ["-D", "-N", node] for node in NODES},
    }
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(daemon(folder, environment, *each)) for each in daemons.items()]
        wait_until_idle(folder, environment, started)
        stack.callback(cancel_all, environment)
        yield environment


def configure(folder: Path) -> None:
    """slurm.conf and what it names."""
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(mode=0o400)
    key.write_bytes(secrets.token_bytes(1024))
    controller, *nodes = free_ports(1 + len(NODES))
    ports = {"controller_port": controller, "node0_port": nodes[0], "node1_port": nodes[1]}
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, num_gpus=NUM_GPUS, **ports))
    for number in range(NUM_GPUS):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{NUM_GPUS - 1}]\n")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def daemon(
    folder: Path, environment: dict[str, str], name: str, arguments: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in the foreground, which goes when this process does; it writes into a .log file of `folder`."""
    program = find(name.partition("-")[0])
    assert program is not None
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [program, *arguments],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_idle(folder: Path, environment: dict[str, str], daemons: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + SECONDS
    states = ""
    while time.monotonic() < end and all(each.poll() is None for each in daemons):
        asked = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t"],
            env=environment,
            capture_output=True,
            text=True,
        )
        states = asked.stdout + asked.stderr
        if asked.stdout.split() == ["node0", "idle", "node1", "idle"]:
            return
        time.sleep(0.2)
    logs = [f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(folder.glob("*.log"))]
    raise AssertionError("\n".join([f"Slurm did not come up; sinfo said: {states}", *logs]))


def cancel_all(environment: dict[str, str]) -> None:
    """No job outlives the daemons: a job's own processes are not their children's."""
    subprocess.run(["scancel", "--user=root"], env=environment)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if not subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True).stdout.strip():
            return
        time.sleep(0.2)


if __name__ == "__main__":
    with slurm(Path(sys.argv[1]).resolve()) as found:
        sys.exit(subprocess.call([os.environ.get("SHELL", "bash")], env=found))
