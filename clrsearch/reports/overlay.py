"""Notes, figures and artifacts that optuna-dashboard shows without storing them.

They are computed from stored data on demand and never written. They therefore work for read-only
database roles, do not go stale, and do not disturb a running study.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import optuna
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, ArtifactMeta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages._cached_storage import _CachedStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from clrsearch.errors import ClrsearchError, ScheduleError, StudyError
from clrsearch.plots.draw import picture, to_plotly
from clrsearch.plots.pictures import picture_of_schedules, picture_of_trials
from clrsearch.results.markdown_note import note, note_of_confirmation
from clrsearch.results.snapshots import Snapshot, snapshot
from clrsearch.results.source import source_code
from clrsearch.search import ATTRIBUTE, CURVES, Record, Study, best_first, quiet
from clrsearch.storage import Database, StudyRow, place_of, study_rows

RENEW_SECONDS = 10.0  # minimum time between two refreshes of a study's note and figures
OVERLAID = 5  # trials in a figure, besides the recommended one and the baseline
KEPT = 64  # artifacts kept in memory
NOTE = "dashboard:note_ver"
RATES, SNIPPET = "rates", "snippet"
_ARTIFACTS = {
    "1": (RATES, "learning-rate.png", "image/png"),
    "2": (SNIPPET, "schedule.py", "text/x-python"),
}
"""Kind, file name and MIME type by the last part of an artifact's id.

Ids may contain only hexadecimal digits and dashes.
"""
_ARTIFACT_ID = re.compile(f"[1-9a-f][0-9a-f]{{0,14}}-({'|'.join(_ARTIFACTS)})")
_PLANTED = (ARTIFACTS_ATTR_PREFIX, f"dashboard:{ARTIFACTS_ATTR_PREFIX}")
"""Stored artifact attributes are dropped: they are not ours, and a browser may execute them."""


@dataclass(slots=True)
class _Shown:
    """The attributes shown for a study, and the state and time they were computed at."""

    study: Study
    state: object
    made: float
    attributes: Mapping[str, Any]


class Extras:
    """The notes and figures of studies, and the artifacts of their trials.

    ``prepare`` is called with each study when it is opened; it may bind a custom rate function.
    """

    def __init__(self, database: Database, prepare: Callable[[Study], None]) -> None:
        self._database = database
        self._prepare = prepare
        self._lock = threading.Lock()  # only one thread at a time reads a study's records
        self._shown: dict[int, _Shown] = {}
        self._versions: dict[int, int] = {}
        self._made: dict[tuple[str, int, str], bytes] = {}  # by study, trial and kind

    def attributes(self, study_id: int) -> Mapping[str, Any]:
        """The system attributes from a study's last refresh; empty before the first one."""
        shown = self._shown.get(study_id)
        return {} if shown is None else shown.attributes

    def renew(self, study_id: int, name: str) -> None:
        """Refresh a study, unless it was refreshed recently or is not a clrsearch study.

        Raises:
            StorageError: the database cannot be read.
        """
        with self._lock:
            shown = self._shown.get(study_id)
            if shown is not None and time.monotonic() - shown.made < RENEW_SECONDS:
                return
            with suppress(StudyError, ScheduleError):  # not a clrsearch study, or unreadable
                study = self._open(study_id, name)
                now = snapshot(study)
                state = _state(now)
                if shown is None or shown.state != state or shown.study is not study:
                    version = self._versions.get(study_id, 0) + 1
                    self._versions[study_id] = version
                    attributes: Mapping[str, Any] = _attributes(study, now, version)
                else:
                    attributes = shown.attributes
                self._shown[study_id] = _Shown(study, state, time.monotonic(), attributes)

    def _open(self, study_id: int, name: str) -> Study:
        shown = self._shown.get(study_id)
        if shown is not None and shown.study.name == name and shown.study.is_there:
            return shown.study
        study = Study.open(self._database, name)
        with suppress(ClrsearchError):  # without the user's file, show the other trials
            self._prepare(study)
        return study

    def artifact(self, trial_id: int, kind: str) -> bytes:
        """The content of an artifact.

        Raises:
            ArtifactNotFound: there is no such trial, or it is not from a clrsearch study.
        """
        place = place_of(self._database.engine, trial_id)
        if place is None:
            raise ArtifactNotFound(f"no trial {trial_id}")
        name, study_id, number = place
        with self._lock:
            try:
                study = self._open(study_id, name)
                key = study.uuid, number, kind  # SQLite reuses the ids of deleted trials
                if key not in self._made:
                    if len(self._made) == KEPT:
                        del self._made[next(iter(self._made))]
                    self._made[key] = _make(study, study.trial(number), kind)
                return self._made[key]
            except ClrsearchError as error:
                raise ArtifactNotFound(str(error)) from error


class Overlay(_CachedStorage):
    """Optuna's storage, overlaid with the notes, figures and artifacts of ``extras``.

    A note that a user has written in the dashboard takes precedence over ours.
    """

    def __init__(self, database: Database, extras: Extras) -> None:
        super().__init__(database.optuna)
        self._engine = database.engine
        self._extras = extras
        self._uuids: dict[int, object] = {}

    def name_of(self, study_id: int) -> str:
        """A study's name, bypassing the cache.

        Raises:
            KeyError: there is no such study.
        """
        return self._backend.get_study_name_from_id(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies, with note and figures for those that have been opened."""
        try:
            found = super().get_all_studies()
        except ValueError:  # an attribute of one of them is not valid JSON
            found = [self._read(row) for row in study_rows(self._engine, ATTRIBUTE)]
        for study in found:
            self._forget_if_another(study)
            study.system_attrs = self._laid_over(study._study_id, study.system_attrs)
        return found

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The stored attributes, overlaid on the computed ones."""
        return self._laid_over(study_id, super().get_study_system_attrs(study_id))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials, with artifacts for those that have ended.

        Attributes with the raw curves are left out, since they would make the page too wide.
        """
        found = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        for trial in found:
            trial._system_attrs = _with_artifacts(trial)
            for name in CURVES:
                trial.user_attrs.pop(name, None)
        return found

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """The stored attributes with our artifacts only; empty if there is no such trial."""
        try:
            trial = self.get_trial(trial_id)
        except KeyError:
            return {}
        return _with_artifacts(trial)

    def _read(self, row: StudyRow) -> FrozenStudy:
        """Read a single study, omitting damaged attributes."""
        attributes: list[dict[str, Any]] = []
        for read in (self._backend.get_study_user_attrs, self._backend.get_study_system_attrs):
            try:
                attributes.append(read(row.id))
            except ValueError:
                attributes.append({})
        user, system = attributes
        directions = self._backend.get_study_directions(row.id)
        return FrozenStudy(row.name, None, user, system, row.id, directions=directions)

    def _forget_if_another(self, study: FrozenStudy) -> None:
        """Drop cached trials if the id now belongs to another study: SQLite reuses deleted ids."""
        stored = study.user_attrs.get(ATTRIBUTE)
        ours = stored.get("uuid") if isinstance(stored, dict) else None
        if self._uuids.setdefault(study._study_id, ours) != ours:
            self._uuids[study._study_id] = ours
            with self._lock:
                self._studies.pop(study._study_id, None)

    def _laid_over(self, study_id: int, stored: Mapping[str, Any]) -> dict[str, Any]:
        extra = self._extras.attributes(study_id)
        if NOTE in stored:
            extra = {key: each for key, each in extra.items() if "note" not in key.split(":")[1]}
        return {**extra, **_without_artifacts(stored)}


class Artifacts:
    """An Optuna artifact store that creates artifacts on demand."""

    def __init__(self, extras: Extras) -> None:
        self._extras = extras

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact for reading.

        Raises:
            ArtifactNotFound: there is no artifact with this id.
        """
        if not _ARTIFACT_ID.fullmatch(artifact_id):
            raise ArtifactNotFound(f"no artifact {artifact_id}")
        trial, _, end = artifact_id.partition("-")
        return io.BytesIO(self._extras.artifact(int(trial, 16), _ARTIFACTS[end][0]))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Refuse to store anything.

        Raises:
            PermissionError: always.
        """
        raise PermissionError("artifacts cannot be uploaded")

    def remove(self, artifact_id: str) -> None:
        """Refuse to remove anything.

        Raises:
            PermissionError: always.
        """
        raise PermissionError("artifacts cannot be removed")


def _without_artifacts(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in stored.items() if not key.startswith(_PLANTED)}


def _with_artifacts(trial: FrozenTrial) -> dict[str, Any]:
    return {**_without_artifacts(trial._system_attrs), **_artifacts_of(trial)}


def _artifacts_of(trial: FrozenTrial) -> dict[str, str]:
    """The attributes that make the dashboard list a finished trial's artifacts."""
    if not trial.state.is_finished() or "family" not in trial.user_attrs:
        return {}
    found = {}
    for end, (_, filename, mimetype) in _ARTIFACTS.items():
        artifact_id = f"{trial._trial_id:x}-{end}"
        meta = ArtifactMeta(
            artifact_id=artifact_id, filename=filename, mimetype=mimetype, encoding=None
        )
        found[f"{ARTIFACTS_ATTR_PREFIX}{artifact_id}"] = json.dumps(asdict(meta))
    return found


def _make(study: Study, record: Record, kind: str) -> bytes:
    if kind == SNIPPET:
        return source_code(study, record, leads=False).encode()
    return picture(picture_of_schedules(study, [record]), "png")


def _plays(study: Study, record: Record) -> bool:
    """Whether the trial's trace can be computed; a custom rate function may not be available."""
    try:
        study.trace(record.family, record.params)
    except ScheduleError:
        return False
    return True


def _state(now: Snapshot) -> object:
    """A value that changes when note and figures have to be recomputed."""
    confirmed = now.confirmed
    return (
        dict(now.slots),
        sum(record.state != "running" for record in now.records),
        None if confirmed is None else dict(confirmed.slots),
    )


def _attributes(study: Study, now: Snapshot, version: int) -> dict[str, Any]:
    """Note and figures as study attributes in optuna-dashboard's format."""
    from optuna_dashboard import save_note, save_plotly_graph_object

    with quiet():
        scratch = optuna.create_study()
        scratch.set_metric_names([now.metric])
    if study.stage == "confirm":
        save_note(scratch, note_of_confirmation(study.confirms))
        return {**scratch._storage.get_study_system_attrs(scratch._study_id), NOTE: version}
    verdict, use = now.verdict, now.recommended
    known = use is not None and _plays(study, use)
    code = source_code(study, use, verdict) if use is not None and known else ""
    save_note(scratch, note(now, code))
    shown = best_first(now.records, now.direction)[:OVERLAID]
    shown += [each for each in (use, now.baseline) if each is not None and each not in shown]
    shown = [each for each in shown if _plays(study, each)]
    if shown:
        for name, figure in (
            ("schedules", picture_of_schedules(study, shown)),
            ("learning-curves", picture_of_trials(study, shown)),
        ):
            save_plotly_graph_object(scratch, to_plotly(figure), graph_object_id=name)
    return {**scratch._storage.get_study_system_attrs(scratch._study_id), NOTE: version}
