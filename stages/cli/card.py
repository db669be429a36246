"""`tldr card`: a model card with the measured results, for the Hugging Face hub.

Reads what `tldr report` reads, results/*.json, dvc.lock and, where it is, artifacts/provenance/train.json; writes the card
to --out or standard output. Works on a fresh clone, without the model, and without the network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stages._errors import UserError
from stages._params import Params, load_params
from stages.cli._project import project_root, read_record

if TYPE_CHECKING:
    from stages.page.card import Identity

RESULTS = ("labels", "schedule", "train", "base", "metrics")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@click.command("card")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, whole. [default: print]"
)
@click.option("--model-id", help="The model's name on the hub, OWNER/NAME.")
@click.option("--base-model", help="The base model's name on the hub. [default: fetch.model of params.yaml, if any]")
@click.option("--license", "license_id", help="License as the hub writes it, such as mit. [default: not stated]")
def command(out: Path | None, model_id: str | None, base_model: str | None, license_id: str | None) -> None:
    """Write a model card with the measured results and their intervals.

    Refuses results that do not belong together by dvc.lock, or that params.yaml no longer describes.
    """
    from stages._io import write_text

    root = project_root()
    text = card(root, load_params(root), model_id, base_model, license_id)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        write_text(out, text)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{out.parent} is not a folder; give --out another path.") from None
    click.echo(f"Wrote {out}.")


def card(root: Path, params: Params, model_id: str | None, base_model: str | None, license_id: str | None) -> str:
    """The card as text; UserError for names that the hub would refuse, and for results that are missing or do not fit."""
    from stages.cli.report import build_report
    from stages.data.lock_record import checked_lock
    from stages.page.card import Sources, model_card

    identity = _identity(params, model_id, base_model, license_id)
    lock = checked_lock(root, params)
    results = {name: read_record(root / "results" / f"{name}.json") for name in RESULTS}
    results["provenance"] = read_record(root / "artifacts" / "provenance" / "train.json")
    return model_card(Sources(build_report(root), params, results, lock), identity)


def _identity(params: Params, model_id: str | None, base_model: str | None, license_id: str | None) -> Identity:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in __all__

    from stages.page.card import Identity

    for option, value in (("--model-id", model_id), ("--base-model", base_model)):
        try:
            if value is not None:
                validate_repo_id(value)
        except HFValidationError:
            raise UserError(f"{option} {value!r} is no name on the hub; write OWNER/NAME.") from None
    if license_id is not None and not LICENSE.fullmatch(license_id):
        raise UserError(
            f"--license {license_id!r} is not written as on the hub; take its identifier, such as apache-2.0."
        )
    if base_model is None and params.fetch.model is not None:
        base_model = params.fetch.model.repo
    return Identity(model_id, base_model, license_id, title=model_id or f"{Path(params.model.path).name}-tldr")
