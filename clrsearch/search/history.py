"""What has been tried, as plain records; the only reader of Optuna's FrozenTrials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from clrsearch.schedules import Value

DISCARDED = "discarded"
"""The attribute of a trial that was begun twice for one slot: it counts for nothing."""

END = "end"
"""The attribute that says how a trial ended: metrics, seconds, what went wrong."""

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

    ``params`` are without the family's prefix; ``values`` maps epochs (from 1) to the metric.
    ``metrics`` holds all metrics of the last epoch, ``seconds`` the time spent in training and
    validation, ``drift`` how far an epoch came out differently when it was repeated after a worker
    was lost, ``error`` the traceback of a failed trial, which is ``final`` where it used up its
    slot. Times are in UTC. In a confirmation, ``finalist`` is the number of the search's trial that
    was run again, on ``seed_index``, and ``test`` holds its metrics on the test split.
    """

    number: int
    slot: int
    family: str
    params: Mapping[str, Value]
    state: State
    diverged: bool
    values: Mapping[int, float]
    metrics: Mapping[str, float]
    worker: str
    device: str
    seconds: float
    drift: float
    error: str
    final: bool
    finalist: int | None
    seed_index: int
    test: Mapping[str, float]
    started: datetime
    ended: datetime | None

    @property
    def epoch(self) -> int:
        """The last epoch that was reported, 0 before the first."""
        return max(self.values, default=0)

    @property
    def value(self) -> float | None:
        """The metric at the last reported epoch; the trial's score where it is complete."""
        return self.values.get(self.epoch)

    @property
    def end(self) -> str:
        """How it ended, in the words of the slot table; ``running`` before."""
        return "diverged" if self.diverged else self.state


class History:
    """A study's records; finished ones are read once per process."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._finished: dict[int, Record] = {}
        self._read: list[Record] = []
        self._read_at = -float("inf")

    def records(self, max_age: float = 0.0) -> list[Record]:
        """Every trial's record in the order of their numbers, at most ``max_age`` seconds old."""
        now = time.monotonic()
        if now - self._read_at > max_age:
            self._read = [
                self._finished.get(trial.number) or self._record(trial)
                for trial in self._storage.get_all_trials(self._study_id, deepcopy=False)
                if "slot" in trial.user_attrs and DISCARDED not in trial.user_attrs
            ]
            self._read_at = now
        return self._read

    def _record(self, trial: FrozenTrial) -> Record:
        record = to_record(trial)
        if trial.state.is_finished():
            self._finished[trial.number] = record
        return record


def to_record(trial: FrozenTrial) -> Record:
    """The record of a trial that one of our workers has begun."""
    attributes: Mapping[str, Any] = trial.user_attrs
    family = attributes["family"]
    end: Mapping[str, Any] = attributes.get(END, {})
    assert trial.datetime_start is not None
    return Record(
        number=trial.number,
        slot=attributes["slot"],
        family=family,
        params={name.removeprefix(f"{family}."): value for name, value in trial.params.items()},
        state=_STATES[trial.state],
        diverged=any(violation > 0 for violation in trial.constraints.values()),
        values=dict(trial.intermediate_values),
        metrics=end.get("metrics", {}),
        worker=attributes["worker"],
        device=attributes["device"],
        seconds=end.get("seconds", 0.0),
        drift=end.get("drift", 0.0),
        error=end.get("error", ""),
        final=end.get("final", False),
        finalist=attributes.get("finalist"),
        seed_index=attributes.get("seed_index", 0),
        test=end.get("test", {}),
        started=trial.datetime_start.astimezone(UTC),
        ended=None if trial.datetime_complete is None else trial.datetime_complete.astimezone(UTC),
    )


def leader(records: Sequence[Record], direction: str, family: str | None = None) -> Record | None:
    """The complete trial with the best last value, of one family where asked, if there is one."""
    of_family = [record for record in records if family in (None, record.family)]
    return next(iter(best_first(of_family, direction)), None)


def best_first(records: Sequence[Record], direction: str) -> list[Record]:
    """The complete trials by their last value, the best first; equal ones by their number."""
    sign = 1.0 if direction == "minimize" else -1.0
    complete = [record for record in records if record.state == "complete"]
    return sorted(complete, key=lambda record: (sign * (record.value or 0.0), record.number))
