"""The status of a study while others work on it: slots, workers, pace and failures.

The clock of this machine is not used: ages come from the database. The pace counts only workers
that are live now, so idle time between two runs does not affect it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clrsearch.causes import cause
from clrsearch.results.allowance import what_is_left
from clrsearch.search import Record, Study, is_over, read_purses
from clrsearch.storage import Claim, SlotState, budget, host_of, unfinished
from clrsearch.tasks import Spacing

RECENT = 20  # trials that the pace is averaged over
FEWEST = 3  # trials needed to know the pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker that holds a slot, and the progress of its trial.

    ``age`` is the time in seconds since the last lease renewal; ``silent`` means that the lease has
    expired. ``trial`` is None until the trial has started, ``device`` until this worker has resumed
    or started it.
    """

    worker: str
    slot: int
    trial: int | None
    device: str | None
    epoch: int
    value: float | None
    attempt: int
    losses: int
    checkpoint: int | None
    age: float
    silent: bool

    @property
    def host(self) -> str:
        """The machine the worker runs on."""
        return host_of(self.worker)

    @property
    def pid(self) -> int | None:
        """The process to kill: the worker's own, or the ``clrsearch run`` that started it."""
        parts = self.worker.split(":")
        return int(parts[1]) if len(parts) > 2 and parts[1].isdecimal() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Throughput: ``workers`` live workers, and ``seconds`` per trial averaged over ``trials``."""

    workers: int
    seconds: float
    trials: int

    @property
    def per_hour(self) -> float:
        """Trials per hour."""
        return 3600 * self.workers / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A cause of failure (see :func:`clrsearch.causes.cause`) and the trials that failed by it."""

    cause: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of a study.

    Attributes:
        name: the study's name.
        metric: the metric that is optimized.
        spacing: the length of a complete trial, and where it is validated.
        slots: number of slots by state.
        holders: the workers that hold slots, by slot.
        pace: the throughput, if known.
        failures: causes of failures, most frequent first.
        departures: why workers left though trials were left, by worker.
        budget: what is left of its time, GPU hours or epochs, in words; empty without such limits.
        packing: how trials are trained, alone or in lanes, and why; empty if nobody asked.
        over: whether the time granted to it is over.
        stopped: whether the study was stopped.
        stopped_by: the latest failed trial, if any.
    """

    name: str
    metric: str
    spacing: Spacing
    slots: Mapping[SlotState, int]
    holders: tuple[Holder, ...]
    pace: Pace | None
    failures: tuple[Failure, ...]
    departures: Mapping[str, str]
    packing: str
    budget: str
    over: bool
    stopped: bool
    stopped_by: int | None

    @property
    def done(self) -> int:
        """Number of slots that have ended."""
        return budget(self.slots) - unfinished(self.slots)

    @property
    def left(self) -> int:
        """Number of open or claimed slots."""
        return unfinished(self.slots)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be trained: all slots have ended, or the time is over."""
        return not self.left or (self.over and not self.live)

    @property
    def live(self) -> tuple[Holder, ...]:
        """The workers whose lease has not expired."""
        return tuple(holder for holder in self.holders if not holder.silent)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until all slots have ended; finished epochs of running trials count."""
        if self.pace is None:
            return None
        begun = sum(holder.epoch for holder in self.holders) / self.spacing.intervals
        return max(self.left - begun, 0.0) * self.pace.seconds / self.pace.workers


def read_status(study: Study) -> Status:
    """Read the current status of a study."""
    claims = study.slots.claims()
    records = study.history.records()
    held = holders(claims, records)
    failed = [record.number for record in records if record.state == "failed"]
    return Status(
        name=study.name,
        metric=study.facts.metric,
        spacing=study.facts.spacing,
        slots=study.slots.counts(),
        holders=held,
        pace=pace(records, len({holder.worker for holder in held if not holder.silent})),
        failures=failures(records),
        departures=study.departures(),
        packing=study.packing,
        budget=what_is_left(read_purses(study), study.limits),
        over=is_over(study),
        stopped=study.stopped is not None,
        stopped_by=max(failed, default=None),
    )


def holders(claims: Iterable[Claim], records: Sequence[Record]) -> tuple[Holder, ...]:
    """The workers that hold slots, with their running trials.

    The slot of a retry still names the failed trial until the next one starts; it counts as none.
    """
    trials = {record.number: record for record in records if record.state != "failed"}
    found = []
    for claim in claims:
        record = None if claim.trial is None else trials.get(claim.trial)
        found.append(
            Holder(
                worker=claim.worker,
                slot=claim.number,
                trial=record.number if record else None,
                device=record.device if record and record.worker == claim.worker else None,
                epoch=record.epoch if record else 0,
                value=record.value if record else None,
                attempt=claim.attempt,
                losses=claim.losses,
                checkpoint=claim.checkpoint,
                age=claim.age,
                silent=claim.expired,
            )
        )
    return tuple(found)


def pace(records: Iterable[Record], workers: int) -> Pace | None:
    """The pace of ``workers`` live workers; None if there is too little data.

    It averages the training and validation time, without pauses, of the latest ``RECENT`` trials
    that ended. Pruned and diverged trials count, failed ones do not.
    """
    ended = sorted(
        (record.ended, record.number, record.seconds)
        for record in records
        if record.ended is not None and record.state != "failed" and record.seconds > 0
    )
    recent = [seconds for _, _, seconds in ended[-RECENT:]]
    if workers == 0 or len(recent) < FEWEST:
        return None
    return Pace(workers=workers, seconds=sum(recent) / len(recent), trials=len(recent))


def failures(records: Iterable[Record]) -> tuple[Failure, ...]:
    """Group failed trials by cause, most frequent first."""
    causes: dict[str, list[int]] = {}
    for record in records:
        if record.state == "failed":
            causes.setdefault(cause(record.error), []).append(record.number)
    grouped = [Failure(cause=each, trials=tuple(trials)) for each, trials in causes.items()]
    return tuple(sorted(grouped, key=lambda failure: (-len(failure.trials), failure.trials)))


def status_json(status: Status) -> str:
    """The status as one line of JSON; epochs are validations if it has ``validate_every``."""
    every = status.spacing.validate_every
    content: dict[str, Any] = {
        "study": status.name,
        "trials": status.done + status.left,
        "done": status.done,
        "slots": {str(state): status.slots.get(state, 0) for state in SlotState},
        "epochs": status.spacing.intervals,
        **({} if every is None else {"validate_every": every}),
        "metric": status.metric,
        "workers": [
            {
                "worker": holder.worker,
                "host": holder.host,
                "pid": holder.pid,
                "device": holder.device,
                "slot": holder.slot,
                "trial": holder.trial,
                "epoch": holder.epoch,
                "value": holder.value,
                "age": round(holder.age, 3),
                "silent": holder.silent,
                "attempt": holder.attempt,
                "losses": holder.losses,
                "checkpoint": holder.checkpoint,
            }
            for holder in status.holders
        ],
        "trials_per_hour": status.pace and round(status.pace.per_hour, 3),
        "seconds_left": None if status.seconds_left is None else round(status.seconds_left, 1),
        "failures": [
            {"cause": failure.cause, "trials": failure.trials} for failure in status.failures
        ],
        "departures": status.departures,
        "packing": status.packing,
        "budget": status.budget,
        "stopped": status.stopped,
    }
    return json.dumps(content)
