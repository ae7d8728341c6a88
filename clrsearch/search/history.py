"""A study's trials as plain records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Literal

from optuna.trial import TrialState
from pydantic import BaseModel, ValidationError

from clrsearch.schedules import Value
from clrsearch.search.study_record import ROW_ERRORS, unreadable
from clrsearch.storage import Details, Reported, Trials
from clrsearch.tasks import Direction, sign_of

OVERLAP = 1000
"""Rows of values to read again, since concurrent transactions may commit rows out of order."""

DISCARDED = "discarded"
"""Attribute of a trial that was created twice for one slot and is ignored."""

END = "end"
"""Attribute with the outcome of a trial: metrics, seconds, error."""

State = Literal["running", "complete", "pruned", "failed"]

_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One trial.

    Attributes:
        params: parameters without the family's prefix.
        values: the metric by epoch, from 1, in order.
        metrics: all metrics of the last epoch.
        seconds: time spent in training and validation.
        drift: how much a repeated epoch's result differed from the first after a worker was lost.
        error: traceback of a failed trial.
        final: whether a failed trial used up its slot.
        finalist: in a confirmation, the number of the search's trial that is run again.
        seed_index: in a confirmation, the seed it is run on.
        ranks: the number of processes that trained it together, one per GPU.
        lanes: the number of lanes of which it was trained in one; 1 if it was trained alone.
        inherited: the number of its first epochs that another trial has trained for it.
        test: in a confirmation, the metrics on the test split.
        started: start time in UTC.
        ended: end time in UTC; None while running.
    """

    number: int
    slot: int
    family: str
    params: Mapping[str, Value]
    state: State
    diverged: bool
    values: dict[int, float] = field(repr=False)
    metrics: Mapping[str, float]
    worker: str = field(repr=False)
    device: str = field(repr=False)
    seconds: float = field(repr=False)
    drift: float = field(repr=False)
    error: str = field(repr=False)
    final: bool = field(repr=False)
    finalist: int | None
    seed_index: int
    test: Mapping[str, float] = field(repr=False)
    started: datetime = field(repr=False)
    ended: datetime | None = field(repr=False)
    ranks: int = field(default=1, repr=False)
    lanes: int = field(default=1, repr=False)
    inherited: int = field(default=0, repr=False)

    @property
    def epoch(self) -> int:
        """The last reported epoch; 0 before the first."""
        return next(reversed(self.values), 0)

    @property
    def value(self) -> float | None:
        """The metric at the last reported epoch; the score of a complete trial."""
        return self.values.get(self.epoch)

    @property
    def end(self) -> str:
        """How it ended, as a slot state; ``running`` before."""
        return "diverged" if self.diverged else self.state


class History:
    """A study's records, updated incrementally from the database."""

    def __init__(self, trials: Trials, study: str) -> None:
        """Read from ``trials``; ``study`` is their study's name, for error messages."""
        self._trials = trials
        self._study = study
        self._records: dict[int, Record] = {}  # by trial id
        self._left_out: set[int] = set()  # discarded, or not started by our workers
        self._first_open = 0  # trials with smaller ids have all finished
        self._last_value = 0  # last row of values read
        self._read: list[Record] = []
        self._read_at = -float("inf")

    def records(self, max_age: float = 0.0) -> list[Record]:
        """All records by trial number, at most ``max_age`` seconds old.

        The latest value of a running trial may be missing. With ``max_age`` > 0, a running trial
        may still show its previous worker.
        """
        if time.monotonic() - self._read_at > max_age:
            self._refresh()
        if max_age == 0:
            self._look_who_runs()
        return self._read

    def of_slot(self, slot: int) -> list[Record]:
        """Records of one slot's trials by trial number, with all their values."""
        self._refresh()
        ids = {each for each, record in self._records.items() if record.slot == slot}
        values = _by_trial(self._trials.values(ids))
        found = [replace(self._records[each], values=values.get(each, {})) for each in ids]
        return sorted(found, key=lambda record: record.number)

    def _look_who_runs(self) -> None:
        """Re-read which workers run the running trials."""
        running = {each for each, record in self._records.items() if record.state == "running"}
        for trial, who in self._trials.attributes(running, ("worker", "device")).items():
            if who and self._records[trial].worker != who["worker"]:
                self._records[trial] = replace(self._records[trial], **who)
                self._list()

    def _list(self) -> None:
        self._read = sorted(self._records.values(), key=lambda record: record.number)

    def _refresh(self) -> None:
        """Read new and newly finished trials, and new values.

        Values are read from a little before the last row on, because rows of concurrent
        transactions may appear out of order; when a trial finishes, all its values are read again.
        Everything is read before anything is stored, so a database error loses nothing.
        """
        now = time.monotonic()
        states = self._trials.states(self._first_open)
        changed = {trial for trial, state in states.items() if self._is_news(trial, state)}
        details = self._details(changed)
        rows = self._trials.values_since(self._last_value - OVERLAP)
        latest = _by_trial(rows)
        arrived = latest if self._first_open == 0 else _by_trial(self._trials.values(changed))
        for trial, found in details.items():
            if "slot" in found.attributes and DISCARDED not in found.attributes:
                self._records[trial] = self._record(found, arrived.get(trial, {}))
            else:
                self._left_out.add(trial)
                self._records.pop(trial, None)
        self._add_values(latest)
        running = (trial for trial, state in states.items() if not state.is_finished())
        self._first_open = next(running, max(states, default=self._first_open - 1) + 1)
        self._last_value = max((each.row for each in rows), default=self._last_value)
        self._read_at = now
        self._list()

    def _details(self, trials: set[int]) -> dict[int, Details]:
        try:
            return self._trials.details(trials)
        except ROW_ERRORS as error:
            raise unreadable(self._study, f"one of its trials: {error}") from error

    def _record(self, found: Details, values: dict[int, float]) -> Record:
        try:
            return to_record(found, values)
        except ROW_ERRORS as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            where = "" if first is None else f"{'.'.join(map(str, first['loc']))}: "
            why = f"{where}{error if first is None else first['msg']}"
            raise unreadable(self._study, f"trial {found.number}: {why}") from error

    def _is_news(self, trial: int, state: TrialState) -> bool:
        if trial in self._left_out:
            return False
        record = self._records.get(trial)
        return record is None or record.state != _STATES[state]

    def _add_values(self, latest: Mapping[int, Mapping[int, float]]) -> None:
        """Add newly read values to running trials."""
        for trial, values in latest.items():
            record = self._records.get(trial)
            if record is None or record.state != "running":
                continue
            if not values.items() <= record.values.items():
                merged = {**record.values, **values}
                self._records[trial] = replace(record, values=dict(sorted(merged.items())))


def _by_trial(reported: Iterable[Reported]) -> dict[int, dict[int, float]]:
    """Group values by trial, sorted by step."""
    values: dict[int, dict[int, float]] = {}
    for trial, _, step, value in reported:
        values.setdefault(trial, {})[step] = value
    for trial, curve in values.items():
        if any(later < earlier for earlier, later in pairwise(curve)):
            values[trial] = dict(sorted(curve.items()))
    return values


class _End(BaseModel):
    """The stored outcome of a trial."""

    metrics: dict[str, float] = {}
    seconds: float = 0.0
    drift: float = 0.0
    error: str = ""
    final: bool = False
    inherited: int = 0
    test: dict[str, float] = {}


class _Stored(BaseModel):
    """The stored attributes of a trial started by one of our workers."""

    slot: int
    family: str
    worker: str
    device: str
    finalist: int | None = None
    seed_index: int = 0
    ranks: int = 1
    lanes: int = 1
    end: _End = _End()


def to_record(details: Details, values: dict[int, float]) -> Record:
    """Convert a trial started by one of our workers to a record.

    Raises:
        ValueError: the stored trial is damaged.
    """
    stored = _Stored.model_validate(details.attributes)
    if details.started is None:
        raise ValueError("it has not been started")
    end, prefix = stored.end, f"{stored.family}."
    return Record(
        number=details.number,
        slot=stored.slot,
        family=stored.family,
        params={name.removeprefix(prefix): value for name, value in details.params.items()},
        state=_STATES[details.state],
        diverged=any(violation > 0 for violation in details.constraints.values()),
        values=values,
        metrics=end.metrics,
        worker=stored.worker,
        device=stored.device,
        seconds=end.seconds,
        drift=end.drift,
        error=end.error,
        final=end.final,
        finalist=stored.finalist,
        seed_index=stored.seed_index,
        inherited=end.inherited,
        test=end.test,
        started=details.started,
        ended=details.ended,
        ranks=stored.ranks,
        lanes=stored.lanes,
    )


def leader(
    records: Sequence[Record], direction: Direction, family: str | None = None
) -> Record | None:
    """The complete trial with the best final value, optionally of one family; None without any."""
    of_family = [record for record in records if family in (None, record.family)]
    return next(iter(best_first(of_family, direction)), None)


def best_first(records: Sequence[Record], direction: Direction) -> list[Record]:
    """Complete trials sorted by final value, best first; ties by number."""
    sign = sign_of(direction)
    complete = [record for record in records if record.state == "complete"]
    return sorted(complete, key=lambda record: (sign * (record.value or 0.0), record.number))


def telling(records: Sequence[Record], direction: Direction, *, most: int) -> list[Record]:
    """Select up to ``most`` trials that did not fail: half of them the best, then the latest."""
    found = [record for record in records if record.state != "failed"]
    if len(found) <= most:
        return found
    kept = {record.number for record in best_first(found, direction)[: most // 2]}
    for record in reversed(found):
        if len(kept) == most:
            break
        kept.add(record.number)
    return [record for record in found if record.number in kept]
