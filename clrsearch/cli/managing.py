"""The commands that change studies and their database, or write a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clrsearch.cli.options import (
    CheckpointDirOption,
    NameArgument,
    StorageOptions,
)


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="File to write.")],
    loop: Annotated[
        bool, typer.Option("--loop", help="Write a training loop, train(run), instead of a class.")
    ] = False,
) -> None:
    """Write a task or a training loop to start from.

    The file runs as it is; its comments say what to change.
    """
    from clrsearch import service
    from clrsearch.reports import say

    command = service.new_file(file, loop=loop)
    say(f"wrote {file}. In its folder, run:", "", f"    {command}")


def schema() -> None:
    """Print the JSON Schema of study files, for editors.

    Editors with a TOML extension (Taplo, Even Better TOML) complete and check keys by it if the
    first line of the study file is `#:schema study.schema.json`.
    """
    import json

    from clrsearch.reports import say
    from clrsearch.search import study_schema

    say(*json.dumps(study_schema(), indent=2).splitlines())


def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    *,
    storage: StorageOptions,
) -> None:
    """Delete a study with all of its trials."""
    from clrsearch import service
    from clrsearch.reports import one_line, say

    def ask() -> None:
        if not yes:
            question = f"Delete the study {name} and all of its trials?"
            typer.confirm(one_line(question), abort=True)

    service.delete(name, storage=storage.url(), before=ask)
    say(f"removed {name}")


def retry(
    name: NameArgument,
    *,
    storage: StorageOptions,
) -> None:
    """Retry failed trials with the same parameters."""
    from clrsearch import service
    from clrsearch.cli import output

    opened = service.retry(name, storage=storage.url())
    output.print_retried(name, opened)


def cancel(
    name: NameArgument,
    *,
    storage: StorageOptions,
) -> None:
    """Start no further trials; let running ones finish.

    No confirmation starts either, until you ask for it with clrsearch confirm.
    """
    from clrsearch import service
    from clrsearch.cli import output

    cancelled = service.cancel(name, storage=storage.url())
    output.print_cancelled(name, cancelled)


def upgrade(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask whether there is a backup.")
    ] = False,
    *,
    storage: StorageOptions,
) -> None:
    """Upgrade a database that an earlier version made.

    Back it up first.
    """
    from clrsearch import service
    from clrsearch.cli import output

    if not yes:
        typer.confirm("Is there a backup, and is nobody using the database?", abort=True)
    output.print_upgraded(service.upgrade_database(storage=storage.url()))


def prune_checkpoints(
    checkpoint_dir: CheckpointDirOption = None,
    *,
    storage: StorageOptions,
) -> None:
    """Delete checkpoints that no running trial needs."""
    from clrsearch import service
    from clrsearch.cli import output

    output.print_pruned(
        service.prune_checkpoints(storage=storage.url(), checkpoint_dir=checkpoint_dir)
    )


def roles(
    owner: Annotated[Path, typer.Option("--owner", help="Storage file of the owner.")],
    worker: Annotated[Path, typer.Option("--worker", help="Storage file of the workers.")],
    viewer: Annotated[Path, typer.Option("--viewer", help="Storage file of the viewers.")],
    *,
    storage: StorageOptions,
) -> None:
    """Create PostgreSQL roles: owner, worker and viewer.

    Each storage file contains the URL that the role will connect with, including its name and
    password. Run this as a user who may create roles; running it again updates them.
    """
    from clrsearch import service
    from clrsearch.cli import output
    from clrsearch.storage import Role

    files = {Role.OWNER: owner, Role.WORKER: worker, Role.VIEWER: viewer}
    made = service.make_database_roles(files, storage=storage.url())
    output.print_roles(made)
