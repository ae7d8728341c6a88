"""Changing studies that are there, and their database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from clrsearch.errors import StudyError
from clrsearch.search import Study, exists, remove_unreadable
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
    """Remove a study with all of its trials; ``before`` is called when it may be removed.

    One that cannot be read is removed too, but for its slots and checkpoints: what says which they
    are cannot be trusted.

    Raises:
        StudyError: there is no such study, or workers are busy with it.
    """
    url = storage_url(storage)
    with open_database(url) as database:
        try:
            study = Study(database, name)
        except StudyError:
            if not exists(database, name):
                raise
            before()
            remove_unreadable(database, name)
            return
        live = sum(each.slots.live() for each in study.stages())
        if live:
            raise StudyError(f"workers are busy with {live} of {name}'s trials: stop them first")
        folders = [checkpoint_folder(url, each, None) for each in study.stages()]
        before()
        study.delete()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def retry(name: str, *, storage: Storage = None) -> int:
    """Give each failed slot of a study another try with the same parameters; how many there were.

    Those of its confirmation as well.

    Raises:
        StudyError: there is no such study.
    """
    with open_database(storage_url(storage)) as database:
        stages = Study(database, name).stages()
        for each in stages:
            each.stop(None)
        return sum(each.slots.retry() for each in stages)


def cancel(name: str, *, storage: Storage = None) -> int:
    """Begin nothing more of a study, a confirmation included; how many slots had not begun.

    Trials that run go on, and interrupted ones are resumed. A confirmation begins only when it is
    asked for again.

    Raises:
        StudyError: there is no such study.
    """
    with open_database(storage_url(storage)) as database:
        return Study(database, name).cancel()


def upgrade_database(*, storage: Storage = None) -> Upgraded:
    """Bring a database that an earlier Optuna or clrsearch made to the versions installed here.

    Raises:
        StorageError: there is no database, it is newer, or a change failed.
    """
    quiet_optuna()
    return upgrade(storage_url(storage))


def make_database_roles(files: Mapping[Role, Path], *, storage: Storage = None) -> list[MadeRole]:
    """Make an owner, a worker and a viewer of a PostgreSQL database, or bring them up to date.

    Each file holds the URL by which that role opens the database, with its name and password.

    Raises:
        StorageError: the database has no roles, a file does not fit, or the server refuses.
    """
    quiet_optuna()
    urls = {role: StorageUrl.from_file(path) for role, path in files.items()}
    return make_roles(storage_url(storage), urls)
