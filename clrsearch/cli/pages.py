"""The commands that show studies in a browser."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from clrsearch.cli.options import (
    NameArgument,
    PatienceOption,
    StorageFileOption,
    StorageOption,
    TaskDirOption,
    storage_option,
)


def report(
    name: NameArgument,
    to: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page, FILE.html.")
    ] = Path("report.html"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Renew it while the study runs, until it has ended.")
    ] = False,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
    storage_patience: PatienceOption = 600,
) -> None:
    """Write a study to one page: verdict, code, curves, parameters, trials.

    The page needs neither a network nor any other file.
    """
    from clrsearch import service
    from clrsearch.cli import output

    with ExitStack() as leaving:
        if watch:
            leaving.enter_context(suppress(KeyboardInterrupt))
        service.report(
            name,
            to,
            storage=storage_option(storage, storage_file),
            task_dir=task_dir,
            watch=watch,
            storage_patience=storage_patience,
            on_write=lambda page: output.print_report(page, to),
            on_wait=output.print_wait,
        )


def dashboard(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="Open this study's page.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="The address to listen at; others than this reach other machines."
        ),
    ] = "127.0.0.1",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Notes cannot be written either.")
    ] = False,
    task_dir: TaskDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Open optuna-dashboard on the studies, with notes, figures and code added.

    It asks nobody who they are, and so listens to this machine alone. Nothing of a study can be
    changed in it but notes.
    """
    from clrsearch import service
    from clrsearch.cli import output

    database = storage_option(storage, storage_file)
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
