"""The commands that show studies in a browser, or in other tools."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from clrsearch.cli.options import (
    NameArgument,
    PatientStorageOptions,
    StorageOptions,
    TaskDirOption,
)


def report(
    name: NameArgument,
    to: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the page to FILE.html.")
    ] = Path("report.html"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Rewrite the page while the study runs.")
    ] = False,
    task_dir: TaskDirOption = None,
    *,
    storage: PatientStorageOptions,
) -> None:
    """Write a study to one HTML page.

    It contains the verdict, the code, all curves, parameters and trials, and needs no network.
    """
    from clrsearch import service
    from clrsearch.cli import output

    with ExitStack() as leaving:
        if watch:
            leaving.enter_context(suppress(KeyboardInterrupt))
        service.report(
            name,
            to,
            storage=storage.url(),
            task_dir=task_dir,
            watch=watch,
            storage_patience=storage.patience(),
            on_write=lambda page: output.print_report(page, to),
            on_wait=output.print_wait,
        )


def mirror(
    name: NameArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="TRACKER", help="mlflow, wandb, trackio or tensorboard.")
    ],
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="PLACE",
            help="MLflow's experiment, the project of wandb or trackio, or tensorboard's folder. "
            "Default: the study's name; for tensorboard, runs.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the study has ended.")
    ] = False,
    task_dir: TaskDirOption = None,
    *,
    storage: PatientStorageOptions,
) -> None:
    """Write a study's trials to an experiment tracker.

    Each trial becomes a run with its parameters, its curve, and its learning rate and momentum by
    epoch; the study becomes one with its verdict, leaderboard and code. The database is only read.
    Run it again at any time: nothing is written twice. Servers are named, and logins given, by the
    tracker's own variables, such as MLFLOW_TRACKING_URI, WANDB_MODE or TRACKIO_DIR.
    """
    from clrsearch import service
    from clrsearch.cli import output

    with ExitStack() as leaving:
        if watch:
            leaving.enter_context(suppress(KeyboardInterrupt))
        service.mirror(
            name,
            to,
            into,
            storage=storage.url(),
            task_dir=task_dir,
            watch=watch,
            storage_patience=storage.patience(),
            on_write=output.print_mirroring,
            on_wait=output.print_wait,
        )


def dashboard(
    name: Annotated[str | None, typer.Argument(metavar="STUDY", help="Study to open.")] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 picks a free one.")
    ] = 8080,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on. The default is reachable from this machine only."
        ),
    ] = "127.0.0.1",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Also refuse changes to notes.")
    ] = False,
    task_dir: TaskDirOption = None,
    *,
    storage: StorageOptions,
) -> None:
    """Open optuna-dashboard on the studies.

    Each study has a note with its verdict and code, and figures. There is no login, so by default
    only this machine can reach it. Nothing but notes can be changed.
    """
    from clrsearch import service
    from clrsearch.cli import output

    database = storage.url()
    with service.dashboard(
        name,
        storage=database,
        host=host,
        port=port,
        read_only=read_only,
        task_dir=task_dir,
    ) as opened:
        output.print_dashboard(opened)
        with suppress(KeyboardInterrupt):
            opened.serve()
