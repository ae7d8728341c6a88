"""The commands that change studies and their database, or write a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clrsearch.cli.options import (
    CheckpointDirOption,
    NameArgument,
    StorageFileOption,
    StorageOption,
    storage_option,
)


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The file to write.")],
    loop: Annotated[
        bool, typer.Option("--loop", help="A training loop, train(run), instead of a class.")
    ] = False,
) -> None:
    """Write a task to begin with: it runs, and comments say what to change."""
    from clrsearch import service
    from clrsearch.reports import say

    command = service.new_file(file, loop=loop)
    say(f"{file} is written. From its folder:", "", f"    {command}")


def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Remove a study with all of its trials."""
    from clrsearch import service
    from clrsearch.reports import one_line, say

    def ask() -> None:
        if not yes:
            question = f"Remove the study {name} and all of its trials?"
            typer.confirm(one_line(question), abort=True)

    service.delete(name, storage=storage_option(storage, storage_file), before=ask)
    say(f"removed {name}")


def retry(
    name: NameArgument,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Give the failed trials another try, with the same parameters."""
    from clrsearch import service
    from clrsearch.cli import output

    opened = service.retry(name, storage=storage_option(storage, storage_file))
    output.print_retried(name, opened)


def cancel(
    name: NameArgument,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Begin nothing more, the confirmation included; what has begun goes on to its end."""
    from clrsearch import service
    from clrsearch.cli import output

    cancelled = service.cancel(name, storage=storage_option(storage, storage_file))
    output.print_cancelled(name, cancelled)


def upgrade(
    yes: Annotated[bool, typer.Option("--yes", help="There is a backup: do not ask.")] = False,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Bring a database of earlier versions to those installed. Back it up first."""
    from clrsearch import service
    from clrsearch.cli import output

    if not yes:
        typer.confirm("Is there a backup, and does nobody work on it?", abort=True)
    output.print_upgraded(service.upgrade_database(storage=storage_option(storage, storage_file)))


def prune_checkpoints(
    checkpoint_dir: CheckpointDirOption = None,
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Remove checkpoints that no running trial of this database needs."""
    from clrsearch import service
    from clrsearch.cli import output

    output.print_pruned(
        service.prune_checkpoints(
            storage=storage_option(storage, storage_file), checkpoint_dir=checkpoint_dir
        )
    )


def roles(
    owner: Annotated[Path, typer.Option("--owner", help="The owner's storage file.")],
    worker: Annotated[Path, typer.Option("--worker", help="The workers' storage file.")],
    viewer: Annotated[Path, typer.Option("--viewer", help="The viewers' storage file.")],
    storage: StorageOption = None,
    storage_file: StorageFileOption = None,
) -> None:
    """Make three roles in PostgreSQL: an owner, a worker, a viewer who changes nothing.

    Each file holds the URL by which that role will open the database, with the name and password
    to give it. Run it as a user who may create roles; again, it brings them up to date.
    """
    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.storage import Role

    files = {Role.OWNER: owner, Role.WORKER: worker, Role.VIEWER: viewer}
    made = service.make_database_roles(files, storage=storage_option(storage, storage_file))
    output.print_roles(made)
