"""Write a study's trials to a tracker, live or afterwards; nothing is written to the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clrsearch.results import snapshot
from clrsearch.schedules import Manual
from clrsearch.search import Record, Study
from clrsearch.service.confirming import has_ended
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import bind_rate
from clrsearch.storage import PATIENCE_SECONDS, Patience, cause, open_database
from clrsearch.trackers import (
    STUDY,
    Mirrored,
    Run,
    Tracker,
    connect,
    key_of,
    require_tracker,
    study_run,
    trial_run,
)

RENEW_SECONDS = 5.0
SHARE = 10  # at most one part in this many of the time is spent on reading and writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirroring:
    """What a tracker has of a study's trials.

    Attributes:
        tracker: its name.
        study: the study's name.
        place: where the trials are in it.
        trials: their number.
        updated: how many of them have just been added or continued.
    """

    tracker: str
    study: str
    place: str
    trials: int
    updated: int


def mirror(
    name: str,
    to: str,
    into: str | None = None,
    *,
    storage: Storage = None,
    task_dir: Path | None = None,
    watch: bool = False,
    storage_patience: float = PATIENCE_SECONDS,
    on_write: Callable[[Mirroring], None] = lambda mirroring: None,
    on_wait: Callable[[str], None] = lambda cause: None,
) -> None:
    """Write a study's trials, its confirmation's too, to a tracker, and its verdict.

    With ``watch`` it goes on every five seconds, or less often if writing takes longer than half a
    second, until the study and its confirmation have ended. It can be interrupted, killed and
    called again at any time: what is there is not written twice. The database is only read; its
    outages are handled as in :func:`status`.

    Args:
        name: the study.
        to: one of the ``clrsearch.trackers.TRACKERS``.
        into: where in the tracker: MLflow's experiment, the project of wandb or Trackio, or
            TensorBoard's folder; by default what their own variables name, or the study's name.
        storage: the database.
        task_dir: folder of a custom rate function.
        watch: whether to go on until the study has ended.
        storage_patience: how long to wait out an outage of the database, in seconds.
        on_write: called when trials have been written, and at the end.
        on_wait: called with the cause of each outage.

    Raises:
        TrackerError: the tracker is unknown, not installed, or cannot be reached or written.
        StudyError: there is no such study.
        TaskError: the custom rate function does not load.
    """
    require_tracker(to)
    patience = Patience(
        storage_patience if watch else 0.0, on_wait=lambda error: on_wait(cause(error))
    )
    with open_database(storage_url(storage), patience=patience) as database:
        study = patience(lambda: Study.open(database, name))
        bind_rate(study, Manual.family, task_dir)
        opened = connect(to, Mirrored(name=study.name, uuid=study.uuid), into)
        with closing(opened) as tracker:
            reader = _Reader(tracker)
            while True:
                began = time.monotonic()
                ended = patience(partial(has_ended, study))  # first, so that nothing is missed
                runs = patience(partial(reader.read, study, ended=ended))
                updated = 0
                for run in runs:
                    tracker.update(run)
                    updated += not run.is_study
                last = ended or not watch
                if updated or last:
                    on_write(
                        Mirroring(
                            tracker=to,
                            study=name,
                            place=tracker.place,
                            trials=len(reader.found | reader.written.keys()),
                            updated=updated,
                        )
                    )
                if last:
                    return
                time.sleep(max(RENEW_SECONDS, SHARE * (time.monotonic() - began)))
                study = patience(study.reopen)


class _Reader:
    """Reads the runs that a tracker does not have as they are now."""

    def __init__(self, tracker: Tracker) -> None:
        self.found = frozenset(tracker.ended()) - {STUDY}
        self.written: dict[str, Record] = {}  # as last read, by key

    def read(self, study: Study, *, ended: bool) -> Iterator[Run]:
        """The study's own run, in which MLflow nests the others, and the trials with news."""
        now = snapshot(study)
        whole = study_run(study, now, ended=ended)
        trials = [(stage, each) for stage in study.stages() for each in stage.history.records()]
        return self._news(whole, trials)

    def _news(self, whole: Run, trials: Sequence[tuple[Study, Record]]) -> Iterator[Run]:
        yield whole
        for stage, record in trials:
            key = key_of(stage, record)
            if key not in self.found and self.written.get(key) != record:
                yield trial_run(stage, record)
                self.written[key] = record
