"""What a stage of dvc.yaml reads and writes, and the image it names: resolved by DVC itself, so that a container gets
exactly what dvc.yaml says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from containers.images import LOCK
from stages._errors import UserError


@dataclass(frozen=True)
class StageFiles:
    """Absolute paths; `inputs` include DVC's cache, `image` is a name of the image lock."""

    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    image: str


def stage_files(root: Path, stage: str) -> StageFiles:
    """The files of `stage` (`evaluate@base` for an item) in the checkout `root`."""
    from dvc.dependency.param import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo(str(root))
        loaded = repo.stage.load_one(str(root / "dvc.yaml"), stage)
    except DvcException as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"DVC cannot read stage {stage} of dvc.yaml: {reason}; correct it there.") from None
    keys = [key for dep in loaded.deps if isinstance(dep, ParamsDependency) for key in _image_keys(root, dep)]
    if len(keys) != 1:
        raise UserError(
            f"dvc.yaml names no image for stage {stage}; add run_in.${{container.engine}}.${{container.device}} of "
            f"{LOCK} to its params."
        )
    inputs = [Path(dep.fs_path) for dep in loaded.deps if not isinstance(dep, ParamsDependency)]
    inputs.append(
        Path(repo.cache.local.path)
    )  # files of a folder may be links into a cache that several checkouts share
    return StageFiles(tuple(inputs), tuple(Path(out.fs_path) for out in loaded.outs), keys[0].rpartition(".")[2])


def _image_keys(root: Path, dependency: object) -> list[str]:
    path, params = Path(getattr(dependency, "fs_path", "")), getattr(dependency, "params", [])
    return [key for key in params if path == root / LOCK and key.startswith("run_in.")]
