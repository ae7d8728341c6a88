"""Trackio: a project of its local database, with one run per trial."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Collection
from typing import Any

from clrsearch.errors import TrackerError
from clrsearch.trackers.tracker import Mirrored, Run, safe, told

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
_STATE = "state"
"""Key of a run's configuration that says how it ended."""


def connect(study: Mirrored, into: str | None) -> Trackio:
    """Open the project ``into``, by default named after the study, in the folder TRACKIO_DIR.

    Raises:
        TrackerError: it cannot be written, or the environment names a server.
    """
    for variable in REMOTE:
        if os.environ.get(variable):
            raise TrackerError(
                f"trackio: only its local database is written: unset {variable}, and upload the "
                "project with trackio sync"
            )
    project = into or safe(study.name).replace(".", "_")  # it would drop other characters
    with told("trackio", ValueError, OSError, sqlite3.Error):
        from trackio.sqlite_storage import SQLiteStorage

        SQLiteStorage.validate_project_name(project)
        SQLiteStorage.init_db(project)
        return Trackio(project, study)


class Trackio:
    """A project; each row has an identifier made from its run and step, which is there once.

    Rows are written at once, with the time at which the trial began, as Trackio's own import of
    CSV files does; its ``init`` and ``log`` would stamp them with the present.
    """

    def __init__(self, project: str, study: Mirrored) -> None:
        self._project = project
        self._study = study

    @property
    def place(self) -> str:
        """The database file."""
        from trackio.sqlite_storage import SQLiteStorage

        return str(SQLiteStorage.get_project_db_path(self._project))

    def ended(self) -> Collection[str]:
        """The keys of the runs that are there whole."""
        from trackio.sqlite_storage import SQLiteStorage

        ours = self._id("")
        with told("trackio", OSError, sqlite3.Error):
            found = SQLiteStorage.get_all_run_configs(self._project)
        return {
            number.removeprefix(ours)
            for number, config in found.items()
            if number.startswith(ours) and config[_STATE] != "running"
        }

    def update(self, run: Run) -> None:
        """Add the rows that are not there, and replace the configuration, in one transaction."""
        from trackio.sqlite_storage import SQLiteStorage

        rows = _rows(run)
        with told("trackio", OSError, sqlite3.Error):
            SQLiteStorage.bulk_log(
                project=self._project,
                run=run.name,
                run_id=self._id(run.key),
                metrics_list=[values for _, _, values in rows],
                steps=[step for _, step, _ in rows],
                timestamps=[run.started.isoformat()] * len(rows),
                log_ids=[f"{self._id(run.key)}/{name}" for name, _, _ in rows],
                config={
                    **run.params,
                    **run.tags,
                    **run.texts,
                    _STATE: run.state,
                    "_Group": self._study.name,
                },
            )

    def close(self) -> None:
        """Nothing is left to be done."""

    def _id(self, key: str) -> str:
        return f"{self._study.short}-{key}"


def _rows(run: Run) -> list[tuple[str, int, dict[str, Any]]]:
    """The rows of a run: what identifies each in it, its step and its values."""
    from trackio import Markdown

    rows = [(str(point.step), point.step, dict[str, Any](point.values)) for point in run.points]
    if run.final and run.ended is not None:
        rows.append((f"final-{run.step}", run.step, dict(run.final)))
    for name, text in run.texts.items():
        if name.endswith(".md"):
            digest = hashlib.sha256(text.encode()).hexdigest()
            shown = {"_type": Markdown.TYPE, "_value": text}
            rows.append((digest, run.step, {name.removesuffix(".md"): shown}))
    return rows
