"""`tldr repro [STAGE]`: `dvc repro`, or `dvc exp run` where values change, after checks that give a sentence.

Reads params.yaml, profiles/, dvc.yaml and .dvc; writes what the stages write; removes finished partial work.
"""

from __future__ import annotations

from pathlib import Path

import click

from stages._params import check_params, read_yaml
from stages.cli._dvc import check_lock, check_repository, run_dvc
from stages.cli._overrides import apply_overrides, with_overrides
from stages.cli._project import TABLES, check_stage, project_root, work_name
from stages.cli.profile import complete_name, overlay_pairs


@click.command("repro")
@click.argument("stage", required=False)
@click.option("--profile", metavar="NAME", shell_complete=complete_name, help="Set the values of profiles/NAME.yaml.")
@click.option("-S", "--set-param", "pairs", multiple=True, metavar="KEY=VALUE", help="Change a key of params.yaml.")
@click.option("--dry-run", is_flag=True, help="Print what would run.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
@click.pass_context
def command(
    ctx: click.Context, stage: str | None, profile: str | None, pairs: tuple[str, ...], dry_run: bool, force: bool
) -> None:
    """Run the stages that are not up to date (up to STAGE if given), then print the report.

    This is `dvc repro`; where -S or the profile changes a value it is `dvc exp run -S ...`, which leaves the changed
    values in params.yaml. -S wins over the profile.
    """
    if stage is not None:
        check_stage(stage, groups=True)
    root = project_root()
    if profile is not None:
        pairs = (*overlay_pairs(root, profile), *pairs)
    arguments = dvc_arguments(root, pairs, stage, dry_run=dry_run, force=force)
    check_repository(root, experiment=bool(pairs))
    check_lock(root)
    check_image_lock(root)
    if not dry_run:
        check_engine(root, pairs, force=force)
    code = run_dvc(root, arguments)
    if dry_run:
        explain_dry_run(root, whole=code == 0)
    if dry_run or code != 0:
        ctx.exit(code)
    remove_work(root, stage)
    if pairs:
        click.echo(f"params.yaml now holds {', '.join(pairs)}; `git diff params.yaml` shows it.", err=True)
    finish(root, stage)


def dvc_arguments(root: Path, pairs: tuple[str, ...], stage: str | None, *, dry_run: bool, force: bool) -> list[str]:
    """Arguments of `dvc`; UserError if params.yaml, alone or with the -S options, is not valid."""
    document = read_yaml(root / "params.yaml")
    check_params(document, "params.yaml")
    arguments = ["exp", "run"] if pairs else ["repro"]
    for override in apply_overrides(document, pairs):
        arguments += ["-S", override]
    if dry_run:
        # without the two others DVC stops at the first missing input, and leaves out what a changed stage leads to
        arguments += ["--dry", "--allow-missing", "--force-downstream"]
    if force:
        arguments.append("--force")
    return arguments if stage is None else [*arguments, stage]


def check_image_lock(root: Path) -> None:
    """UserError for a broken image lock, if the stages name images: DVC would first remove the outputs of a stage."""
    from containers.images import LOCK, read_images

    if str(LOCK) in (root / "dvc.yaml").read_text(encoding="utf-8"):
        read_images(root)


def check_engine(root: Path, pairs: tuple[str, ...], *, force: bool) -> None:
    """UserError if a stage will run in a container and engine, image or GPU is missing: DVC first removes its outputs."""
    container = with_overrides(read_yaml(root / "params.yaml"), pairs).container
    if container.engine == "host":
        return
    from stages.cli.status import changed_stages

    if pairs or force or changed_stages(root):
        from containers.run import check_all

        check_all(root, container)


def explain_dry_run(root: Path, *, whole: bool) -> None:
    """What DVC's list leaves open: stages after a changed one, and outputs that a fresh clone does not have. It is not `whole`
    if DVC failed, as it does (3.67) at a changed stage whose input is missing: it looks it up in its run cache all the same."""
    from stages.cli.status import changed_stages, has_missing_outputs

    missing = [name for name, changes in changed_stages(root).items() if has_missing_outputs(changes)]
    if missing:
        click.echo(
            f"Outputs of {', '.join(missing)} are not here: these stages run too, or come from the cache.", err=True
        )
    if whole:
        click.echo("A stage after a changed one is listed, and skipped if what it reads comes out the same.", err=True)
    elif missing:
        click.echo(
            "DVC cannot list a changed stage whose input is not here; `tldr repro` without --dry-run makes the input first.",
            err=True,
        )


def remove_work(root: Path, stage: str | None) -> None:
    """Finished work is of no use once DVC has committed the outputs; unfinished work of other parameters is kept, and so
    is the work of later stages."""
    from stages._work import FINISHED, UNFINISHED
    from stages.cli.gc import collect, stage_folders

    mine = [base for base in stage_folders(root) if stage is None or base.name.startswith(work_name(stage))]
    rows = [row for base in mine for row in collect(base, (FINISHED,), dry_run=False)]
    unfinished = [row.num_bytes for row in rows if row.state == UNFINISHED]
    if unfinished:
        click.echo(
            f"Unfinished work of former runs is kept in .tldr/work ({sum(unfinished) / 1e6:.1f} MB); `tldr gc --all` "
            "removes it.",
            err=True,
        )


def finish(root: Path, stage: str | None) -> None:
    """The report, or after a part of the pipeline what comes next."""
    from stages.cli.report import show_report

    compared = stage is not None and stage.startswith("evaluate") and all((root / name).is_file() for name in TABLES)
    if stage is None or compared:
        show_report(root)
    else:
        click.echo(f"{stage} is up to date; `tldr repro` runs the rest and prints the report.", err=True)
