"""Where things lie: the database, the checkpoints, the name of a study."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from clrsearch.errors import PlanError, StorageError
from clrsearch.search import Study, StudyPlan
from clrsearch.storage import (
    FILE_VARIABLE,
    STORAGE_VARIABLE,
    StorageUrl,
)
from clrsearch.tasks import is_kept_here

CHECKPOINT_VARIABLE = "CLRSEARCH_CHECKPOINT_DIR"
DATA_VARIABLE = "CLRSEARCH_DATA_DIR"

Storage = str | StorageUrl | None
"""A database URL; None stands for that of the environment, or for a file in the user's folder."""


def storage_url(given: Storage) -> StorageUrl:
    """The database given, else that of the environment, else a file in the user's folder.

    The environment names it by ``CLRSEARCH_STORAGE``, or by ``CLRSEARCH_STORAGE_FILE`` a file that
    holds its URL.
    """
    if isinstance(given, StorageUrl):
        return given.absolute()
    text, file = (os.environ.get(name) for name in (STORAGE_VARIABLE, FILE_VARIABLE))
    if given:
        return StorageUrl(given).absolute()
    if text and file:
        raise StorageError(f"{STORAGE_VARIABLE} and {FILE_VARIABLE} are both set: unset one")
    if file:
        return StorageUrl.from_file(Path(file))
    return StorageUrl(text).absolute() if text else StorageUrl.default()


def checkpoint_folder(url: StorageUrl, study: Study, given: Path | None) -> Path:
    """Where a study's checkpoints lie.

    Raises:
        StorageError: a link leads from there to elsewhere.
    """
    return study_folder(checkpoint_root(url, given), study.uuid)


def study_folder(root: Path, uuid: str) -> Path:
    """The folder of a study among those of all studies.

    Raises:
        StorageError: a link leads from there to elsewhere.
    """
    folder = root / uuid
    if folder.resolve().parent != root.resolve():
        raise StorageError(f"{folder} is a link that leads out of {root}: remove the link")
    return folder


def checkpoint_root(url: StorageUrl, given: Path | None) -> Path:
    """Where the checkpoints of all studies lie, in a folder each.

    That is the folder given, else that of ``CLRSEARCH_CHECKPOINT_DIR``, else one beside a SQLite
    file, else one in the user's data folder.

    Raises:
        StorageError: it is no folder.
    """
    variable = os.environ.get(CHECKPOINT_VARIABLE)
    if given is not None or variable:
        folder = Path(given or str(variable)).absolute()
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{folder} is not a folder: --checkpoint-dir names one")
        return folder
    if url.file is not None:
        return beside(url.file)
    return platformdirs.user_data_path("clrsearch", appauthor=False) / "checkpoints"


def beside(file: Path) -> Path:
    """The folder for the checkpoints of a SQLite file, and of no other database."""
    return file.with_name(f"{file.stem}-checkpoints")


def task_folder(given: Path | None) -> Path:
    """Where the files of a task lie: in the folder given, else in the current one.

    Raises:
        PlanError: there is no such folder.
    """
    folder = Path(given or Path.cwd()).absolute()
    if not folder.is_dir():
        raise PlanError(f"--task-dir {folder}: there is no such folder")
    return folder


def data_folder(given: Path | None) -> Path:
    """Where tasks find data that lies on the disk: in the folder named, else in the user's own."""
    own = platformdirs.user_data_path("clrsearch", appauthor=False) / "data"
    return named_data_folder(given) or own


def named_data_folder(given: Path | None) -> Path | None:
    """The data folder given, else that of ``CLRSEARCH_DATA_DIR``; workers are told of no other."""
    variable = os.environ.get(DATA_VARIABLE)
    named = given or variable
    return None if not named else Path(named).absolute()


def default_name(plan: StudyPlan) -> str:
    """What a study is called that was given no name: as its task's module or file."""
    place, _, attribute = plan.task.partition(":")
    if is_kept_here(plan.task):
        return attribute.lower()
    return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
