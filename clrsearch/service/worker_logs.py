"""The output of a study's workers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clrsearch.errors import StudyError
from clrsearch.search import Study
from clrsearch.service.equipment import LOGS
from clrsearch.service.paths import Storage, checkpoint_folder, storage_url
from clrsearch.storage import open_database, quiet_optuna


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLog:
    """The file with a worker's output: its beginning is dropped beyond 8 MB."""

    path: Path
    bytes: int
    written: datetime

    @property
    def worker(self) -> str:
        """The worker's name, in which ``-`` stands for ``:``."""
        return self.path.stem

    def text(self) -> str:
        """What the worker has printed."""
        return self.path.read_text(errors="replace")


def logs(
    name: str,
    *,
    worker: str | None = None,
    storage: Storage = None,
    checkpoint_dir: Path | None = None,
) -> Sequence[WorkerLog]:
    """The logs of the workers that ``run`` and ``launch local`` started here, the latest last.

    ``worker`` is a worker's name or a part of it, such as its process ID.

    Raises:
        StudyError: there is no such study, or no log of such a worker; names those that there are.
    """
    quiet_optuna()
    url = storage_url(storage)
    with open_database(url) as database:
        folder = checkpoint_folder(url, Study.open(database, name), checkpoint_dir) / LOGS
    found = sorted(map(_log, folder.glob("*.log")), key=lambda log: log.written)
    if not found:
        raise StudyError(
            f"there are no logs of {name} in {folder}: its workers ran elsewhere, or with another "
            "--checkpoint-dir"
        )
    if worker is None:
        return found
    named = [log for log in found if worker.replace(":", "-") in log.worker]
    if not named:
        known = ", ".join(log.worker for log in found[-3:])
        raise StudyError(f"{name} has no log of a worker {worker}; the latest: {known}")
    return named


def _log(path: Path) -> WorkerLog:
    state = path.stat()
    written = datetime.fromtimestamp(state.st_mtime, UTC)
    return WorkerLog(path=path, bytes=state.st_size, written=written)
