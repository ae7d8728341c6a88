"""The studies of a database: created, opened, listed and deleted, as plain records."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import get_storage
from optuna.study import StudyDirection
from pydantic import BaseModel, ConfigDict, ValidationError

from clrsearch.errors import StudyError
from clrsearch.schedules import Value
from clrsearch.search.plan import StudyPlan
from clrsearch.search.rangetest import RangeTest
from clrsearch.search.space import build_space
from clrsearch.search.study_names import unknown
from clrsearch.search.study_record import (
    ATTRIBUTE,
    CONDITION,
    CONFIRMATION,
    ROW_ERRORS,
    StudyRecord,
    read_record,
    unreadable,
)
from clrsearch.search.warm_start import EarlierStudy, packed, unpacked
from clrsearch.storage import Database, study_rows
from clrsearch.tasks import TaskFacts

FINALIST = "finalist:"  # prefix of the trial number in the attribute's key
STOPPED = "clrsearch:stopped"
CANCELLED = "clrsearch:cancelled"
DEPARTED = "clrsearch:departed:"
"""Prefix of the keys under which workers say why they left, each with its name."""
EARLIER_STUDIES = "clrsearch:earlier:"  # prefix of the number of a piece in the attribute's key
PACKING = "clrsearch:packing"
GRANTED = "clrsearch:granted"
"""Key of what a command has granted: the limits, their deadline, and what an interval takes."""
PATIENCE_SECONDS = 5.0  # wait for another process that is creating the same study


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A schedule to confirm."""

    family: str
    params: Mapping[str, Value]


class Granted(BaseModel):
    """What a command has granted a study, as stored.

    Attributes:
        deadline: when its minutes are over, in Unix time of the database's clock.
        interval_seconds: what the training and validation of an interval took when it was tried.
        limits: the plan's keys that limit the search, so that workers learn of changed ones; empty
            if they are those that the study was created with.
    """

    model_config = ConfigDict(frozen=True)

    deadline: float | None = None
    interval_seconds: float = 0.0
    limits: Mapping[str, bool | int | float | None] = {}


class Studies:
    """The studies of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.storage = get_storage(database.optuna)

    def searches(self) -> list[str]:
        """Names of the searches clrsearch created, oldest first; confirmations are excluded.

        Includes studies that cannot be read.
        """
        rows = study_rows(self.database.engine, ATTRIBUTE)
        return [row.name for row in rows if row.text is not None and not _is_confirmation(row.text)]

    def names(self) -> tuple[list[str], list[str]]:
        """Names of all studies, oldest first: those created by clrsearch, and the others."""
        rows = study_rows(self.database.engine, ATTRIBUTE)
        ours = [row.name for row in rows if row.text is not None]
        return ours, [row.name for row in rows if row.text is None]

    def read(self, name: str) -> StudyRecord:
        """The record of a study.

        Raises:
            StudyError: no study has this name (similar names are suggested), clrsearch did not
                create it, or its record is damaged.
        """
        try:
            study_id = self.storage.get_study_id_from_name(name)
        except KeyError:
            raise StudyError(unknown(name, self.searches())) from None
        attribute = self._attribute(study_id, name)
        if attribute is None:
            raise StudyError(f"{name} is an Optuna study that clrsearch did not create")
        return read_record(study_id, name, attribute)

    def create(
        self,
        name: str,
        plan: StudyPlan,
        facts: TaskFacts,
        versions: Mapping[str, str],
        *,
        range_test: RangeTest | None = None,
        confirms: StudyRecord | None = None,
        condition: str | None = None,
        earlier: Sequence[EarlierStudy] = (),
        granted: Granted | None = None,
    ) -> StudyRecord:
        """Create a study without slots, or find it if another process has just created it.

        Args:
            name: the study's name.
            plan: the study's plan.
            facts: the task's facts.
            versions: versions of the software that creates it.
            range_test: the range test, if the plan uses one.
            confirms: the search to confirm; None to create a search.
            condition: what the confirmation changes, if anything.
            earlier: what it takes over from earlier studies.
            granted: what the command grants it.

        Raises:
            PlanError: the plan cannot be searched.
            StudyError: the name is taken by another kind of study.
        """
        # reject an invalid plan before writing anything
        build_space(plan, facts, tested=range_test)
        direction = StudyDirection[facts.direction.upper()]
        try:
            study_id = self.storage.create_new_study([direction], name)
        except DuplicatedStudyError:
            study_id = self.storage.get_study_id_from_name(name)
            if not self._is_half_made(study_id, direction) or self._appears(study_id):
                return self._of_the_same_kind(name, confirms, condition)
        link = None if confirms is None else {"uuid": str(confirms.uuid), "name": confirms.name}
        pieces = packed(earlier) if earlier else []
        for number, piece in enumerate(pieces):
            self.storage.set_study_user_attr(study_id, f"{EARLIER_STUDIES}{number}", piece)
        if granted is not None:  # before the plan, whose minutes mean nothing without a deadline
            self.storage.set_study_user_attr(study_id, GRANTED, granted.model_dump(mode="json"))
        attribute = {
            "uuid": str(uuid.uuid4()),
            "stage": "search" if confirms is None else "confirm",
            "confirms": link,
            "condition": condition,
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            "plan": plan.model_dump(mode="json"),
            "facts": facts.model_dump(mode="json"),
            "versions": dict(versions),
            "range_test": None if range_test is None else range_test.model_dump(mode="json"),
            "earlier": len(pieces),
        }
        self.storage.set_study_user_attr(study_id, ATTRIBUTE, attribute)
        return read_record(study_id, name, attribute)

    def earlier(self, record: StudyRecord) -> tuple[EarlierStudy, ...]:
        """What a study takes over from earlier ones.

        Raises:
            StudyError: it is damaged.
        """
        if not record.earlier:
            return ()
        stored = self.storage.get_study_user_attrs(record.id)
        try:
            return unpacked([stored[f"{EARLIER_STUDIES}{n}"] for n in range(record.earlier)])
        except ROW_ERRORS as error:
            raise unreadable(record.name, error) from error

    def change(self, record: StudyRecord, **changes: Any) -> None:
        """Replace values of a study's record."""
        stored = self.storage.get_study_user_attrs(record.id)[ATTRIBUTE]
        self.storage.set_study_user_attr(record.id, ATTRIBUTE, {**stored, **changes})

    def change_plan(self, record: StudyRecord, **changes: Any) -> None:
        """Replace keys of a study's plan; those it does not store keep their defaults."""
        stored = self.storage.get_study_user_attrs(record.id)[ATTRIBUTE]
        self.change(record, plan={**stored["plan"], **changes})

    def is_there(self, record: StudyRecord) -> bool:
        """Whether the study still exists."""
        try:
            stored = self.storage.get_study_user_attrs(record.id).get(ATTRIBUTE)
        except KeyError:
            return False
        return stored is not None and stored["uuid"] == str(record.uuid)

    def confirmation(self, record: StudyRecord, condition: str | None = None) -> StudyRecord | None:
        """The confirmation of a search, or the one under a changed condition; None if not begun."""
        for name in _confirmation_names(record, condition):
            if self._confirms(name, record, condition):
                return self.read(name)
        return None

    def conditions(self, record: StudyRecord) -> list[str]:
        """The changed conditions under which a search has been confirmed, oldest first."""
        found = []
        for row in study_rows(self.database.engine, ATTRIBUTE):
            stored = _parsed(row.text)
            if _links_to(stored, record) and stored.get("condition") is not None:
                found.append(stored["condition"])
        return found

    def create_confirmation(
        self,
        record: StudyRecord,
        plan: StudyPlan,
        facts: TaskFacts | None = None,
        condition: str | None = None,
    ) -> StudyRecord:
        """Create the confirmation of a search, or find it; ``plan`` is the search's latest.

        Under a changed ``condition``, ``plan`` and ``facts`` are the changed ones.
        """
        for name in _confirmation_names(record, condition):
            try:
                return self.create(
                    name,
                    plan,
                    facts or record.facts,
                    record.versions,
                    range_test=record.range_test,
                    confirms=record,
                    condition=condition,
                )
            except StudyError as error:  # the name is taken by another study
                taken = error
        raise taken

    def finalists(self, record: StudyRecord) -> dict[int, Finalist]:
        """The finalists of a confirmation, by trial number in the search."""
        attributes = self.storage.get_study_user_attrs(record.id)
        try:
            return {
                int(key.removeprefix(FINALIST)): Finalist(**value)
                for key, value in attributes.items()
                if key.startswith(FINALIST)
            }
        except ROW_ERRORS as error:
            raise unreadable(record.name, error) from error

    def add_finalist(self, record: StudyRecord, number: int, finalist: Finalist) -> None:
        """Store a finalist with a confirmation."""
        value = {"family": finalist.family, "params": dict(finalist.params)}
        self.storage.set_study_user_attr(record.id, f"{FINALIST}{number}", value)

    def stopped(self, record: StudyRecord) -> str | None:
        """The traceback for which a study was stopped, or None."""
        return self.storage.get_study_user_attrs(record.id).get(STOPPED) or None

    def stop(self, record: StudyRecord, traceback: str | None) -> None:
        """Mark a study as stopped, with the traceback as the reason; None removes the mark."""
        self.storage.set_study_user_attr(record.id, STOPPED, traceback or "")

    def note_departure(self, record: StudyRecord, worker: str, reason: str) -> None:
        """Store why a worker left though slots were left."""
        self.storage.set_study_user_attr(record.id, f"{DEPARTED}{worker}", reason)

    def departures(self, record: StudyRecord) -> dict[str, str]:
        """The reasons of the workers that left though slots were left, by worker."""
        attributes = self.storage.get_study_user_attrs(record.id)
        return {
            key.removeprefix(DEPARTED): str(reason)
            for key, reason in attributes.items()
            if key.startswith(DEPARTED) and reason
        }

    def note_packing(self, record: StudyRecord, text: str) -> None:
        """Store how the latest worker trains its trials, alone or in lanes, and why."""
        self.storage.set_study_user_attr(record.id, PACKING, text)

    def packing(self, record: StudyRecord) -> str:
        """What :meth:`note_packing` has stored; empty if nothing."""
        return str(self.storage.get_study_user_attrs(record.id).get(PACKING, ""))

    def cancelled(self, record: StudyRecord) -> bool:
        """Whether a study is marked as cancelled."""
        return bool(self.storage.get_study_user_attrs(record.id).get(CANCELLED, False))

    def cancel(self, record: StudyRecord, *, cancelled: bool) -> None:
        """Mark a study as cancelled, or remove the mark."""
        self.storage.set_study_user_attr(record.id, CANCELLED, cancelled)

    def granted(self, record: StudyRecord) -> Granted:
        """What a command has granted a search."""
        found = self.storage.get_study_user_attrs(record.id).get(GRANTED)
        try:
            return Granted() if found is None else Granted.model_validate(found)
        except ValidationError as error:
            raise unreadable(record.name, error) from error

    def grant(self, record: StudyRecord, granted: Granted) -> None:
        """Store what a command grants a search."""
        self.storage.set_study_user_attr(record.id, GRANTED, granted.model_dump(mode="json"))

    def delete(self, record: StudyRecord) -> None:
        """Delete a study with its trials; its slots and checkpoints are kept."""
        self.storage.delete_study(record.id)

    def delete_unreadable(self, name: str) -> None:
        """Delete a study that cannot be opened, with its trials.

        Its slots and checkpoints are kept, because the stored id that identifies them cannot be
        trusted.
        """
        self.storage.delete_study(self.storage.get_study_id_from_name(name))

    def _attribute(self, study_id: int, name: str) -> Any:
        try:
            return self.storage.get_study_user_attrs(study_id).get(ATTRIBUTE)
        except ValueError as error:  # not JSON
            raise unreadable(name, error) from error

    def _of_the_same_kind(
        self, name: str, confirms: StudyRecord | None, condition: str | None
    ) -> StudyRecord:
        """The record of an existing study, if it is of the kind to be created."""
        there = self.read(name)
        if confirms is None and there.stage == "confirm":
            raise StudyError(
                f"{name} is the confirmation of {there.search}: choose another name with --name"
            )
        if confirms is not None and not self._confirms(name, confirms, condition):
            raise StudyError(f"{name} is not the confirmation of {confirms.name}")
        return there

    def _confirms(self, name: str, search: StudyRecord, condition: str | None) -> bool:
        """Whether the study of this name confirms ``search``, by the UUID stored with it.

        With a ``condition``, whether it does so under that one.

        Earlier versions stored no UUID: their confirmations have the usual name and were created
        after the search.
        """
        try:
            study_id = self.storage.get_study_id_from_name(name)
        except KeyError:
            return False
        attribute = self._attribute(study_id, name)
        if not isinstance(attribute, dict) or attribute.get("stage") != "confirm":
            return False
        if attribute.get("confirms") is None:
            return name == _confirmation_names(search)[0] and study_id > search.id
        return _links_to(attribute, search) and attribute.get("condition") == condition

    def _is_half_made(self, study_id: int, direction: StudyDirection) -> bool:
        """Whether a study without a plan was left by a process killed while creating it."""
        return (
            self.storage.get_n_trials(study_id) == 0
            and self.storage.get_study_directions(study_id) == [direction]
            and all(
                key == GRANTED or key.startswith(EARLIER_STUDIES)
                for key in self.storage.get_study_user_attrs(study_id)
            )
        )

    def _appears(self, study_id: int) -> bool:
        """Whether the process creating the study writes its plan within a few seconds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if ATTRIBUTE in self.storage.get_study_user_attrs(study_id):
                return True
            time.sleep(0.1)
        return False


def _confirmation_names(search: StudyRecord, condition: str | None = None) -> tuple[str, str]:
    """The usual name of a search's confirmation, and the one to use if that is taken."""
    suffix = CONFIRMATION if condition is None else f"{CONDITION}{condition}"
    usual = f"{search.name}{suffix}"
    return usual, f"{usual}.{str(search.uuid)[:8]}"


def _is_confirmation(text: str) -> bool:
    return _parsed(text).get("stage") == "confirm"


def _links_to(attribute: Mapping[str, Any], search: StudyRecord) -> bool:
    """Whether a confirmation's attribute names ``search`` as what it confirms."""
    link = attribute.get("confirms")
    return isinstance(link, dict) and link.get("uuid") == str(search.uuid)


def _parsed(text: str | None) -> Mapping[str, Any]:
    """A study's attribute; empty if there is none or it cannot be read."""
    try:
        stored = json.loads(text or "")
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}
