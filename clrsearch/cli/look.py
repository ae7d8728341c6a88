"""The commands that look at studies and schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clrsearch.cli.options import (
    CheckpointDirOption,
    DataDirOption,
    DeviceOption,
    JsonLinesOption,
    JsonOption,
    NameArgument,
    OutputOption,
    PatienceOption,
    PictureOption,
    StorageFileOption,
    StorageOption,
    TaskDirOption,
    assignments,
    storage_option,
)

if TYPE_CHECKING:
    from clrsearch.service import Finding


def best(
    name: NameArgument,
    format: Annotated[
        Literal[
            "torch",
            "lightning",
            "transformers",
            "keras",
            "optax",
            "timm",
            "table",
            "json",
            "toml",
        ],
        typer.Option(
            "--format",
            help="Code for one of these libraries, a table of all steps, or the values.",
        ),
    ] = "torch",
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Print the best schedule: a file that runs alone, a table, or values."""
    from clrsearch import service
    from clrsearch.cli import output

    database = storage_option(storage, storage_file)
    code = "torch" if format in ("json", "toml") else format
    found = service.best(name, format=code, storage=database, task_dir=task_dir)
    output.print_best(found, format)


def preview(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Families of schedules, or studies: their best."),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A value of the families, as max_lr=0.1, or of one, as cyclic.max_lr=0.1. "
            'A list gives one schedule each: \'mode=["triangular", "exp_range"]\'.',
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Default: 20, or the study's.")
    ] = None,
    steps_per_epoch: Annotated[
        int | None, typer.Option("--steps-per-epoch", min=1, help="Default: 100, or the study's.")
    ] = None,
    to: OutputOption = None,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show the rates and momenta of schedules, without training.

    What is not set is as in the first trial of a family whose task has a rate of 0.1.
    """
    from clrsearch import service
    from clrsearch.cli import output

    shown = service.preview(
        names,
        assignments(changes or []),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        storage=storage_option(storage, storage_file),
        task_dir=task_dir,
    )
    output.print_preview(shown, to=to, json=json)


def plot(
    name: NameArgument,
    picture: Annotated[
        Literal["scores", "curves", "range-test"],
        typer.Argument(
            metavar="PICTURE",
            help="scores: on fresh seeds, by schedule. curves: the metric of the confirmed "
            "schedules, epoch by epoch, and their rates. range-test: losses by rate.",
        ),
    ],
    to: PictureOption,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Draw what a study has found."""
    from clrsearch import service
    from clrsearch.cli import output

    database = storage_option(storage, storage_file)
    output.draw(service.picture(name, picture, storage=database, task_dir=task_dir), to)


def list_studies(
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonLinesOption = False,
) -> None:
    """List the studies."""
    from clrsearch import service
    from clrsearch.cli import output

    unreadable: list[str] = []
    studies = service.list_studies(
        storage=storage_option(storage, storage_file), on_unreadable=unreadable.append
    )
    output.print_list(studies, unreadable, json=json)


def status(
    name: NameArgument,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it anew every 2 seconds, until all trials have ended."),
    ] = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
    json: JsonLinesOption = False,
) -> None:
    """Show how a study stands: its workers, the time left, what failed."""
    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.errors import PlanError
    from clrsearch.reports import Status, StatusView, Terminal

    console = Terminal()
    if watch and not json and not console.is_terminal:
        raise PlanError("--watch draws on a terminal: add --json for a line every 2 seconds")
    on_change: Callable[[Status], None] = partial(output.print_status, json=json)
    on_wait = output.print_wait
    with ExitStack() as leaving:
        if watch and not json:
            view = leaving.enter_context(StatusView(console))
            on_change, on_wait = view.show, view.wait
        if watch:
            leaving.enter_context(suppress(KeyboardInterrupt))
        service.status(
            name,
            storage=storage_option(storage, storage_file),
            watch=watch,
            storage_patience=storage_patience,
            on_change=on_change,
            on_wait=on_wait,
        )


def show(
    name: NameArgument,
    trial: Annotated[int | None, typer.Argument(metavar="TRIAL", help="A trial's number.")] = None,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonLinesOption = False,
) -> None:
    """Show a study's trials, or one of them epoch by epoch."""
    from clrsearch import service
    from clrsearch.cli import output

    database = storage_option(storage, storage_file)
    shown = service.show(name, trial, storage=database, task_dir=task_dir)
    output.print_shown(shown, json=json)


def replay(
    name: NameArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="A trial's number.")],
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Run a trial again: does it come out the same?

    Exit code 1 if it does not.
    """
    from clrsearch import service
    from clrsearch.cli import output

    again = service.replay(
        name,
        trial,
        storage=storage_option(storage, storage_file),
        device=device,
        task_dir=task_dir,
        data_dir=data_dir,
    )
    output.print_replayed(again)
    if not again.matches:
        raise typer.Exit(1)


def doctor(
    device: DeviceOption = None,
    checkpoint_dir: CheckpointDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonOption = False,
) -> None:
    """Look at what is needed here: Python, torch, device, storage, checkpoints, launchers.

    Fit to be pasted into a report: there is no password in it. Exit code 1 if something is wrong.
    """
    from clrsearch import service

    database = storage_option(storage, storage_file)
    found = service.examine(storage=database, device=device, checkpoint_dir=checkpoint_dir)
    _print_findings(found, json=json)


def check(
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    json: JsonOption = False,
) -> None:
    """Look whether what is stored of each study fits together. Nothing is changed.

    Exit code 1 if something is wrong.
    """
    from clrsearch import service

    found = service.check_database(storage=storage_option(storage, storage_file))
    _print_findings(found, json=json)


def _print_findings(found: Sequence[Finding], *, json: bool) -> None:
    """Print them; exit with 1 if something is wrong."""
    from clrsearch.cli import output

    output.print_findings(found, json=json)
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(1)
