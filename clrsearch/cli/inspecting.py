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
    PatientStorageOptions,
    PictureOption,
    StorageOptions,
    TaskDirOption,
    assignments,
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
            help="Code for a library, a table of every step, or the values alone.",
        ),
    ] = "torch",
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Rescale it to this batch size."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Stretch it to so many epochs.")
    ] = None,
    task_dir: TaskDirOption = None,
    *,
    storage: StorageOptions,
) -> None:
    """Print the recommended schedule as code or values.

    For another batch size the rates are rescaled: in proportion for SGD, by the square root for
    adaptive optimizers. All lengths keep their shares of the run. Such a schedule is not confirmed:
    clrsearch confirm with the same options searches its peak again and compares it with the
    baseline.
    """
    from clrsearch import service
    from clrsearch.cli import output

    database = storage.url()
    code = "torch" if format in ("json", "toml") else format
    found = service.best(
        name,
        format=code,
        epochs=epochs,
        batch_size=batch_size,
        storage=database,
        task_dir=task_dir,
    )
    output.print_best(found, format)


def preview(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Schedule families, or studies (their recommended schedule)."
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A value for all families (max_lr=0.1) or for one (cyclic.max_lr=0.1). "
            'A list gives one schedule each: \'mode=["triangular", "exp_range"]\'.',
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs. Default: 20, or the study's.")
    ] = None,
    steps_per_epoch: Annotated[
        int | None,
        typer.Option(
            "--steps-per-epoch", min=1, help="Steps per epoch. Default: 100, or the study's."
        ),
    ] = None,
    to: OutputOption = None,
    task_dir: TaskDirOption = None,
    *,
    storage: StorageOptions,
    json: JsonOption = False,
) -> None:
    """Show the rates and momenta of schedules.

    Nothing is trained. What you do not set is as in the first trial of a family, for a task with a
    learning rate of 0.1.
    """
    from clrsearch import service
    from clrsearch.cli import output

    shown = service.preview(
        names,
        assignments(changes or []),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        storage=storage.url(),
        task_dir=task_dir,
    )
    output.print_preview(shown, to=to, json=json)


def plot(
    name: NameArgument,
    picture: Annotated[
        Literal["schedule", "scores", "curves", "trials", "progress", "time", "horizon"],
        typer.Argument(
            metavar="FIGURE",
            help="schedule: the recommended one. scores, curves: the finalists on fresh seeds. "
            "trials: all learning curves. progress, time: best score so far. horizon: score by "
            "length.",
        ),
    ],
    to: PictureOption,
    task_dir: TaskDirOption = None,
    *,
    storage: StorageOptions,
) -> None:
    """Draw a figure of a study."""
    from clrsearch import service
    from clrsearch.cli import output

    database = storage.url()
    output.draw(service.picture(name, picture, storage=database, task_dir=task_dir), to)


def list_studies(
    *,
    storage: StorageOptions,
    json: JsonLinesOption = False,
) -> None:
    """List the studies."""
    from clrsearch import service
    from clrsearch.cli import output

    unreadable: list[str] = []
    studies = service.list_studies(storage=storage.url(), on_unreadable=unreadable.append)
    output.print_list(studies, unreadable, json=json)


def status(
    name: NameArgument,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Refresh every 2 seconds until all trials have ended."),
    ] = False,
    *,
    storage: PatientStorageOptions,
    json: JsonLinesOption = False,
) -> None:
    """Show progress, workers, time left and failures."""
    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.errors import PlanError
    from clrsearch.reports import StatusView, Terminal
    from clrsearch.results import Status

    console = Terminal()
    if watch and not json and not console.is_terminal:
        raise PlanError("--watch needs a terminal: add --json for a line every 2 seconds")
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
            storage=storage.url(),
            watch=watch,
            storage_patience=storage.patience(),
            on_change=on_change,
            on_wait=on_wait,
        )


def logs(
    name: NameArgument,
    worker: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKER", help="A worker's name, or a part of it such as its process ID."
        ),
    ] = None,
    checkpoint_dir: CheckpointDirOption = None,
    *,
    storage: StorageOptions,
) -> None:
    """Show what workers on this machine printed."""
    from clrsearch import service
    from clrsearch.cli import output

    found = service.logs(name, worker=worker, storage=storage.url(), checkpoint_dir=checkpoint_dir)
    output.print_logs(found, whole=worker is not None)


def show(
    name: NameArgument,
    trial: Annotated[
        int | None, typer.Argument(metavar="TRIAL", help="Number of the trial.")
    ] = None,
    task_dir: TaskDirOption = None,
    *,
    storage: StorageOptions,
    json: JsonLinesOption = False,
) -> None:
    """Show all trials of a study, or one in detail."""
    from clrsearch import service
    from clrsearch.cli import output

    database = storage.url()
    shown = service.show(name, trial, storage=database, task_dir=task_dir)
    output.print_shown(shown, json=json)


def replay(
    name: NameArgument,
    trial: Annotated[int, typer.Argument(metavar="TRIAL", help="Number of the trial.")],
    device: DeviceOption = None,
    task_dir: TaskDirOption = None,
    data_dir: DataDirOption = None,
    *,
    storage: StorageOptions,
) -> None:
    """Re-run a trial and check that it reproduces.

    Nothing is stored. The exit code is 1 if any epoch differs; a trial of several processes is
    replayed in one, and may differ as sums in another order do.
    """
    from clrsearch import service
    from clrsearch.cli import output

    again = service.replay(
        name,
        trial,
        storage=storage.url(),
        device=device,
        task_dir=task_dir,
        data_dir=data_dir,
    )
    output.print_replayed(again)
    if not again.agrees:
        raise typer.Exit(1)


def doctor(
    device: DeviceOption = None,
    checkpoint_dir: CheckpointDirOption = None,
    *,
    storage: StorageOptions,
    json: JsonOption = False,
) -> None:
    """Check Python, torch, devices, storage and launchers.

    The output contains no passwords, so you can paste it into a bug report. The exit code is 1 if
    something is wrong.
    """
    from clrsearch import service

    database = storage.url()
    found = service.examine(storage=database, device=device, checkpoint_dir=checkpoint_dir)
    _print_findings(found, json=json)


def check(
    *,
    storage: StorageOptions,
    json: JsonOption = False,
) -> None:
    """Check that the stored studies are consistent.

    Nothing is changed. The exit code is 1 if something is wrong.
    """
    from clrsearch import service

    found = service.check_database(storage=storage.url())
    _print_findings(found, json=json)


def _print_findings(found: Sequence[Finding], *, json: bool) -> None:
    """Print them; exit with 1 if something is wrong."""
    from clrsearch.cli import output

    output.print_findings(found, json=json)
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(1)
