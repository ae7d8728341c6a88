"""Change existing studies, and their database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from clrsearch.errors import StudyError
from clrsearch.search import Studies, Study
from clrsearch.service.paths import Storage, checkpoint_folder, storage_url
from clrsearch.storage import (
    MadeRole,
    Role,
    StorageUrl,
    Upgraded,
    make_roles,
    open_database,
    quiet_optuna,
    upgrade,
)


def delete(
    name: str, *, storage: Storage = None, before: Callable[[], None] = lambda: None
) -> None:
    """Delete a study with all of its trials.

    ``before`` is called just before the deletion, once all checks have passed. A study that cannot
    be read is deleted too, except for its slots and checkpoints, which cannot be identified
    reliably.

    Raises:
        StudyError: there is no such study, or workers are busy with it.
    """
    url = storage_url(storage)
    with open_database(url) as database:
        try:
            study = Study.open(database, name)
        except StudyError:
            if name not in Studies(database).searches():
                raise
            before()
            Studies(database).delete_unreadable(name)
            return
        live = sum(each.slots.live() for each in study.related())
        if live:
            raise StudyError(
                f"workers are still running {live} of {name}'s trials: stop them first"
            )
        folders = [checkpoint_folder(url, each, None) for each in study.related()]
        before()
        study.delete()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def retry(name: str, *, storage: Storage = None) -> int:
    """Reopen the failed slots of a study and its confirmation, with the same parameters.

    Returns the number of slots reopened.

    Raises:
        StudyError: there is no such study.
    """
    with open_database(storage_url(storage)) as database:
        stages = Study.open(database, name).related()
        for each in stages:
            each.stop(None)
        return sum(each.slots.retry() for each in stages)


def cancel(name: str, *, storage: Storage = None) -> int:
    """Cancel the slots of a study and its confirmation that have not started; returns how many.

    Running trials continue, and interrupted ones are resumed. The confirmation starts only if it is
    requested again.

    Raises:
        StudyError: there is no such study.
    """
    with open_database(storage_url(storage)) as database:
        return Study.open(database, name).cancel()


def upgrade_database(*, storage: Storage = None) -> Upgraded:
    """Upgrade a database created by an earlier Optuna or clrsearch to the installed versions.

    Raises:
        StorageError: there is no database, it is newer, or a migration failed.
    """
    quiet_optuna()
    return upgrade(storage_url(storage))


def make_database_roles(files: Mapping[Role, Path], *, storage: Storage = None) -> list[MadeRole]:
    """Create or update the owner, worker and viewer roles of a PostgreSQL database.

    Each file contains the database URL for that role, with its user name and password.

    Raises:
        StorageError: the database has no roles, a file is not valid, or the server refuses.
    """
    quiet_optuna()
    urls = {role: StorageUrl.from_file(path) for role, path in files.items()}
    return make_roles(storage_url(storage), urls)
