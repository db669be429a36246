"""Jobs of one stage on a Ray cluster: shards of its answers, or one training over several machines.

    python -m containers.cluster.ray_jobs sample --jobs 8 --gpus 1
    python -m containers.cluster.ray_jobs train --jobs 2 --gpus 8

Run it in the checkout, which must lie at the same place on every machine, on a disk that they share. Connects to the cluster
that RAY_ADDRESS names or that this machine is part of; without one Ray starts one here. Each job is a process `python -m stages
run STAGE` with container.engine: host; inside our image if the Ray nodes run in it. Reads and writes what that does. A shard
that is stopped (exit code 75), or whose machine goes away, is started again and goes on. Needs the package ray:
`pip install -e '.[stages,cluster]'`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

RESUMABLE = 75  # exit code of a stage that was stopped and goes on when it is run again
RETRIES = 20


class StoppedError(Exception):
    """The job can be run again, and goes on."""


@click.command()
@click.argument("stage")
@click.option("--jobs", type=click.IntRange(1), required=True, help="Shards, or with `train` machines.")
@click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs of each job.")
@click.option("--cpus", type=click.FloatRange(0), default=1.0, show_default=True, help="CPU cores of each job.")
def main(stage: str, jobs: int, gpus: int, cpus: float) -> None:
    """Run the jobs of STAGE: sample, evaluate@base or evaluate@candidate in shards, train on several machines."""
    import ray

    ray.init(log_to_driver=True)
    root, needs = Path.cwd(), {"CPU": cpus, "GPU": float(gpus)}
    codes = train(root, jobs, needs) if stage == "train" else draw(root, stage, jobs, needs)
    failed = {job: code for job, code in enumerate(codes) if code != 0}
    for job, code in failed.items():
        click.echo(f"Job {job} of {jobs} ended with exit code {code}; its message is above.", err=True)
    if failed:
        raise SystemExit(max(failed.values()))


def draw(root: Path, stage: str, jobs: int, needs: dict[str, float]) -> list[int]:
    """Exit codes of the shards, each a task that Ray starts wherever there is room, and again where it was stopped."""
    import ray

    task = ray.remote(run).options(
        num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=RETRIES, retry_exceptions=[StoppedError]
    )
    codes: list[int] = ray.get([task.remote(root, [stage, "--shard", f"{job}/{jobs}"], {}) for job in range(jobs)])
    return codes


def train(root: Path, jobs: int, needs: dict[str, float]) -> list[int]:
    """Exit codes of the machines, which start together: train.launch.num_machines has to be `jobs`.

    Nothing is retried: where one machine ends, all do, and the whole has to be run again. It goes on from its checkpoint.
    """
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{name: number for name, number in needs.items() if number}] * jobs, strategy="SPREAD")
    ray.get(group.ready())

    def placed(function: Any, job: int) -> Any:
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=job)
        return ray.remote(function).options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], scheduling_strategy=strategy, max_retries=0
        )

    address, port = ray.get(placed(meeting_place, 0).remote())
    places = [{"MACHINE_RANK": str(job), "MASTER_ADDR": address, "MASTER_PORT": str(port)} for job in range(jobs)]
    codes: list[int] = ray.get([placed(run, job).remote(root, ["train"], place) for job, place in enumerate(places)])
    return codes


def meeting_place() -> tuple[str, int]:
    """Address of this machine and a port that is free on it."""
    import ray

    util: Any = ray.util  # its functions have no types
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(util.get_node_ip_address()), int(probe.getsockname()[1])


def run(root: Path, arguments: list[str], environment: dict[str, str]) -> int:
    """Exit code of `tldr run ARGUMENTS` in the checkout `root`; StoppedError for a shard that was stopped."""
    command = [sys.executable, "-m", "stages", "run", *arguments]
    code = subprocess.run(command, cwd=root, env={**os.environ, **environment}).returncode
    if code == RESUMABLE and "--shard" in arguments:
        raise StoppedError
    return code


if __name__ == "__main__":
    main()
