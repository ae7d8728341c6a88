"""Where the database, checkpoints, tasks and data are stored, and default names of studies."""

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
"""A database URL; None for the one set in the environment, or a file in the user's data folder."""


def storage_url(given: Storage) -> StorageUrl:
    """Resolve the database URL: ``given``, else the environment, else a file in the user's folder.

    In the environment, ``CLRSEARCH_STORAGE`` contains the URL, or ``CLRSEARCH_STORAGE_FILE`` the
    path of a file with the URL.
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
    """The folder of a study's checkpoints.

    Raises:
        StorageError: it is a link out of the checkpoint root.
    """
    return study_folder(checkpoint_root(url, given), study.uuid)


def study_folder(root: Path, uuid: str) -> Path:
    """The folder of a study under ``root``, which holds one folder per study.

    Raises:
        StorageError: it is a link out of ``root``.
    """
    folder = root / uuid
    if folder.resolve().parent != root.resolve():
        raise StorageError(f"{folder} is a link that points outside {root}: remove the link")
    return folder


def checkpoint_root(url: StorageUrl, given: Path | None) -> Path:
    """The folder that contains each study's checkpoint folder.

    It is ``given``, else ``CLRSEARCH_CHECKPOINT_DIR``, else a folder next to the SQLite file, else
    a folder in the user's data folder.

    Raises:
        StorageError: the path is not a folder.
    """
    variable = os.environ.get(CHECKPOINT_VARIABLE)
    if given is not None or variable:
        folder = Path(given or str(variable)).absolute()
        if folder.exists() and not folder.is_dir():
            raise StorageError(f"{folder} is not a folder: set one with --checkpoint-dir")
        return folder
    if url.file is not None:
        return beside(url.file)
    return platformdirs.user_data_path("clrsearch", appauthor=False) / "checkpoints"


def beside(file: Path) -> Path:
    """The checkpoint folder next to a SQLite file; no other database uses it."""
    return file.with_name(f"{file.stem}-checkpoints")


def task_folder(given: Path | None) -> Path:
    """The folder of a task's files: ``given``, else the current one.

    Raises:
        PlanError: there is no such folder.
    """
    folder = Path(given or Path.cwd()).absolute()
    if not folder.is_dir():
        raise PlanError(f"--task-dir {folder}: no such folder")
    return folder


def data_folder(given: Path | None) -> Path:
    """The folder of tasks' data: see :func:`named_data_folder`, else one in the user's folder."""
    own = platformdirs.user_data_path("clrsearch", appauthor=False) / "data"
    return named_data_folder(given) or own


def named_data_folder(given: Path | None) -> Path | None:
    """The data folder ``given``, else ``CLRSEARCH_DATA_DIR``; None lets workers use the default."""
    variable = os.environ.get(DATA_VARIABLE)
    named = given or variable
    return None if not named else Path(named).absolute()


def default_name(plan: StudyPlan) -> str:
    """Default name of a study: that of its task's module or file."""
    place, _, attribute = plan.task.partition(":")
    if is_kept_here(plan.task):
        return attribute.lower()
    return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
