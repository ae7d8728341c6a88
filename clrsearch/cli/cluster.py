"""The commands that start workers for a study: on this machine, as SLURM jobs, as Ray tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clrsearch.cli.groups import grouped
from clrsearch.cli.options import (
    JsonLinesOption,
    LimitedWorkerOptions,
    NameArgument,
    StorageOptions,
    number_or,
)
from clrsearch.cli.searching import chosen_watch, print_ended

if TYPE_CHECKING:
    from clrsearch.service import Launch, Workers

launch = typer.Typer(
    help="Start workers: here, on SLURM, or on Ray.",
    no_args_is_help=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions(LimitedWorkerOptions):
    """How many workers to start, and how they work."""

    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of workers.")]
    per_gpu: Annotated[
        Any,
        typer.Option(
            "--per-gpu",
            parser=number_or("auto"),
            metavar="auto|N",
            help="Workers per GPU; auto measures how many are worth it, on this machine.",
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and start nothing.")
    ] = False

    def asked(self) -> Workers:
        """The workers asked for."""
        from clrsearch import service

        return service.Workers(count=self.workers, per_gpu=self.per_gpu, settings=self.settings())


@launch.command()
@grouped
def local(
    name: NameArgument,
    *,
    options: LaunchOptions,
    storage: StorageOptions,
    json: JsonLinesOption = False,
) -> None:
    """Start workers on this machine and watch them."""
    from clrsearch import service
    from clrsearch.cli import output

    watch = chosen_watch(json=json)
    ready = service.launch_local(
        name,
        options.asked(),
        storage=storage.url(),
        on_change=watch.show,
        on_note=output.print_note,
    )
    if _shown(ready, dry_run=options.dry_run):
        return
    with watch:
        result = ready.start()
    print_ended(result, json=json)


@launch.command()
@grouped
def slurm(
    name: NameArgument,
    partition: Annotated[str | None, typer.Option("--partition", help="SLURM partition.")] = None,
    time_limit: Annotated[
        int,
        typer.Option(
            "--time-limit",
            metavar="MINUTES",
            min=1,
            help="Time limit of each job; it then saves, is requeued and resumes.",
        ),
    ] = 60,
    gres: Annotated[
        str | None,
        typer.Option("--gres", help="Resources per job, such as gpu:1. Default: none."),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            "--sbatch", metavar="KEY=VALUE", help="Any sbatch option, such as account=mine."
        ),
    ] = None,
    log_dir: Annotated[
        Path | None,
        typer.Option("--log-dir", help="Folder for job scripts and logs. Default: clrsearch-jobs."),
    ] = None,
    *,
    options: LaunchOptions,
    storage: StorageOptions,
) -> None:
    """Submit workers as an array of SLURM jobs."""
    from clrsearch import service
    from clrsearch.reports import say

    ready = service.launch_slurm(
        name,
        options.asked(),
        minutes=time_limit,
        partition=partition,
        gres=gres,
        options=_sbatch_options(sbatch or []),
        log_dir=log_dir,
        storage=storage.url(),
    )
    if not _shown(ready, dry_run=options.dry_run):
        say(*ready.start().split("\n"))


@launch.command()
@grouped
def ray(
    name: NameArgument,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Ray cluster: HOST:6379 or auto. Default: start one here."),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option("--num-gpus", min=0, help="GPUs per worker. Default: 1 / --per-gpu, or none."),
    ] = None,
    max_retries: Annotated[
        int, typer.Option("--max-retries", min=0, help="How often to restart a lost worker.")
    ] = 3,
    allow_unauthenticated: Annotated[
        bool,
        typer.Option(
            "--allow-unauthenticated",
            help="Use a cluster without authentication: anyone who can reach it can run code.",
        ),
    ] = False,
    *,
    options: LaunchOptions,
    storage: StorageOptions,
) -> None:
    """Start workers as Ray tasks and wait for them."""
    from clrsearch import service
    from clrsearch.reports import say

    ready = service.launch_ray(
        name,
        options.asked(),
        address=address,
        num_gpus=num_gpus,
        max_retries=max_retries,
        allow_unauthenticated=allow_unauthenticated,
        storage=storage.url(),
    )
    if not _shown(ready, dry_run=options.dry_run):
        say(*ready.start().split("\n"))


def _shown(ready: Launch[Any], *, dry_run: bool) -> bool:
    """Say what there is to say, and for a dry run what would run; whether it is one."""
    from clrsearch.reports import say

    for note in ready.notes:
        say(note, error=True)
    if dry_run:
        say(*ready.text.split("\n"))
    return dry_run


def _sbatch_options(texts: list[str]) -> dict[str, str]:
    from clrsearch.errors import PlanError

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise PlanError(f"--sbatch {text}: expected KEY=VALUE, such as account=mine")
        found[key.removeprefix("--")] = value
    return found
