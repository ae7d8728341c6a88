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
