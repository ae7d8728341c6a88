"""Optuna's trials as plain rows: the only module that accesses its tables in SQL.

Optuna's own reads build an object for every running trial on each call, about a second with a
thousand of them, and it commits each value separately. The table layout is that of the schema
checked by :func:`~clrsearch.storage.engine.require_version`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import TrialState

CONSTRAINT = "constraints:"
"""Prefix of a constraint's name in the key of a trial's system attribute."""
CHUNK = 500  # ids per query; some databases limit the number of variables

_trials = models.TrialModel.__table__
_params = models.TrialParamModel.__table__
_user = models.TrialUserAttributeModel.__table__
_system = models.TrialSystemAttributeModel.__table__
_values = models.TrialIntermediateValueModel.__table__


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """A trial without its values; ``started`` and ``ended`` are in UTC.

    Most of it is written when the trial is created, the rest when it ends. An enqueued trial has
    not been started.
    """

    number: int
    state: TrialState
    started: datetime | None
    ended: datetime | None
    params: Mapping[str, Any]
    attributes: Mapping[str, Any]
    constraints: Mapping[str, float]


class Reported(NamedTuple):
    """A value reported by a trial, with its row id."""

    trial: int
    row: int
    step: int
    value: float


class StudyRow(NamedTuple):
    """A study, and the raw text of one of its attributes, or None."""

    id: int
    name: str
    text: str | None


class Trials:
    """The trials of one study."""

    def __init__(self, engine: sa.Engine, study_id: int, *, unread: Collection[str] = ()) -> None:
        """User attributes whose keys are in ``unread`` are never loaded."""
        self._engine = engine
        self._ours = _trials.c.study_id == study_id
        self._unread = tuple(unread)

    def states(self, first: int = 0) -> dict[int, TrialState]:
        """States of the trials from id ``first`` on, by id."""
        query = sa.select(_trials.c.trial_id, _trials.c.state)
        query = query.where(self._ours, _trials.c.trial_id >= first).order_by(_trials.c.trial_id)
        return {row.trial_id: row.state for row in self._rows(query)}

    def details(self, ids: Collection[int]) -> dict[int, Details]:
        """Trials without their values, by id.

        The state is read first, so anything written before a state change is read with it.
        """
        times = (_trials.c.datetime_start, _trials.c.datetime_complete)
        rows = list(self._of(ids, _trials, _trials.c.number, _trials.c.state, *times))
        params: dict[int, dict[str, Any]] = {each: {} for each in ids}
        constraints: dict[int, dict[str, float]] = {each: {} for each in ids}
        columns = (_params.c.param_name, _params.c.param_value, _params.c.distribution_json)
        for row in self._of(ids, _params, *columns):
            kind = _distribution(row.distribution_json)
            params[row.trial_id][row.param_name] = kind.to_external_repr(row.param_value)
        attributes = self._attributes(ids, _user.c.key.not_in(self._unread))
        ours = _system.c.key.like(f"{CONSTRAINT}%")
        for row in self._of(ids, _system, _system.c.key, _system.c.value_json, where=ours):
            name = row.key.removeprefix(CONSTRAINT)
            constraints[row.trial_id][name] = json.loads(row.value_json)
        return {
            row.trial_id: Details(
                number=row.number,
                state=row.state,
                started=row.datetime_start and row.datetime_start.replace(tzinfo=UTC),
                ended=row.datetime_complete and row.datetime_complete.replace(tzinfo=UTC),
                params=params[row.trial_id],
                attributes=attributes[row.trial_id],
                constraints=constraints[row.trial_id],
            )
            for row in rows
        }

    def attributes(self, ids: Collection[int], keys: Collection[str]) -> dict[int, dict[str, Any]]:
        """Selected user attributes of trials, by id."""
        return self._attributes(ids, _user.c.key.in_(keys))

    def _attributes(
        self, ids: Collection[int], where: sa.ColumnElement[bool]
    ) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {each: {} for each in ids}
        for row in self._of(ids, _user, _user.c.key, _user.c.value_json, where=where):
            found[row.trial_id][row.key] = json.loads(row.value_json)
        return found

    def values(self, ids: Collection[int]) -> list[Reported]:
        """All values reported by these trials."""
        return [Reported(*row) for row in self._of(ids, _values, *_REPORTED, where=_FINITE)]

    def values_since(self, row: int) -> list[Reported]:
        """Values reported by the study's trials in rows after ``row``."""
        query = (
            sa.select(_values.c.trial_id, *_REPORTED)
            .join(_trials, _trials.c.trial_id == _values.c.trial_id)
            .where(self._ours, _FINITE, _values.c.trial_intermediate_value_id > row)
        )
        return [Reported(*each) for each in self._rows(query)]

    def report(self, trial: int, values: Mapping[int, float]) -> bool:
        """Store values of a running trial by step in one transaction; False if it has ended.

        Steps that already have a value keep it.
        """
        query = sa.select(_trials.c.state).where(_trials.c.trial_id == trial).with_for_update()
        there = sa.select(_values.c.step).where(_values.c.trial_id == trial)
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        with self._engine.begin() as connection:
            if connection.scalars(query).one().is_finished():
                return False
            known = set(connection.scalars(there.where(_values.c.step.in_(values))))
            rows = [
                {
                    "trial_id": trial,
                    "step": step,
                    "intermediate_value": number,
                    "intermediate_value_type": kind,
                }
                for step, value in values.items()
                if step not in known
                for number, kind in [stored(value)]
            ]
            if rows:
                connection.execute(_values.insert(), rows)
        return True

    def _of(
        self,
        ids: Collection[int],
        table: sa.Table,
        *columns: sa.Column[Any],
        where: sa.ColumnElement[bool] | None = None,
    ) -> Iterator[Any]:
        """Rows of a table for these trials, in the order they were written.

        For many trials, the whole range from the first to the last is read; few are selected one by
        one, because the range between them may be a whole study.
        """
        query = sa.select(table.c.trial_id, *columns).order_by(*table.primary_key)
        if where is not None:
            query = query.where(where)
        if len(ids) > CHUNK:
            if table is not _trials:
                query = query.join(_trials, _trials.c.trial_id == table.c.trial_id)
            between = _trials.c.trial_id.between(min(ids), max(ids))
            rows = self._rows(query.where(self._ours, between))
            yield from (row for row in rows if row.trial_id in ids)
        elif ids:
            yield from self._rows(query.where(table.c.trial_id.in_(ids)))

    def _rows(self, query: sa.Select[Any]) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(query).all())


_REPORTED = (_values.c.trial_intermediate_value_id, _values.c.step, _values.c.intermediate_value)
_FINITE = (
    _values.c.intermediate_value_type
    == models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
)


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    """Parse a distribution from JSON; cached, because a study has only a few."""
    return json_to_distribution(text)


def study_rows(engine: sa.Engine, key: str) -> list[StudyRow]:
    """All studies, oldest first, with the raw text of one of their user attributes.

    Optuna would read all attributes of all studies, and fail on all if one is damaged.
    """
    studies = models.StudyModel.__table__
    attributes = models.StudyUserAttributeModel.__table__
    ours = sa.and_(attributes.c.study_id == studies.c.study_id, attributes.c.key == key)
    query = (
        sa.select(studies.c.study_id, studies.c.study_name, attributes.c.value_json)
        .select_from(studies.outerjoin(attributes, ours))
        .order_by(studies.c.study_id)
    )
    with engine.connect() as connection:
        return [StudyRow(*row) for row in connection.execute(query)]


def place_of(engine: sa.Engine, trial_id: int) -> tuple[str, int, int] | None:
    """Name and id of a trial's study, and the trial's number; None if there is no such trial."""
    studies = models.StudyModel.__table__
    query = (
        sa.select(studies.c.study_name, studies.c.study_id, _trials.c.number)
        .join(_trials, _trials.c.study_id == studies.c.study_id)
        .where(_trials.c.trial_id == trial_id)
    )
    with engine.connect() as connection:
        found = connection.execute(query).one_or_none()
    return None if found is None else (found.study_name, found.study_id, found.number)
