"""A study at one moment, as plain data: what every other report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clrsearch.reports.confirmed import Confirmed, confirmed
from clrsearch.schedules import Schedule
from clrsearch.search import Record, Study, Verdict, leader
from clrsearch.storage import SlotState, budget, unfinished

ENDS = (SlotState.COMPLETE, SlotState.PRUNED, SlotState.DIVERGED, SlotState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a study has come. ``leader`` and ``baseline`` are the best complete trials so far.

    ``slots`` counts the slots by state; ``records`` are all trials in the order of their numbers.
    ``confirmed`` is the confirmation, where that has begun.
    """

    name: str
    task: str
    metric: str
    direction: str
    epochs: int
    steps_per_epoch: int
    slots: Mapping[SlotState, int]
    confirmed: Confirmed | None
    records: Sequence[Record]
    leader: Record | None
    baseline: Record | None
    baseline_family: str
    schedules: Mapping[int, Schedule]

    @property
    def total(self) -> int:
        """The study's budget; what was cancelled is no part of it."""
        return budget(self.slots)

    @property
    def done(self) -> int:
        """How many slots are used up."""
        return budget(self.slots) - unfinished(self.slots)

    @property
    def verdict(self) -> Verdict | None:
        """What the fresh seeds say, if there are some that all finalists have run with."""
        return self.confirmed.verdict if self.confirmed else None

    @property
    def recommended(self) -> Record | None:
        """The trial to use: the one that the verdict has chosen, without one the leader."""
        if self.verdict is None:
            return self.leader
        return next(each for each in self.records if each.number == self.verdict.chosen)

    @property
    def running(self) -> list[Record]:
        """The trials that have begun and not ended, those of a confirmation included."""
        runs = self.confirmed.runs if self.confirmed else ()
        return [record for record in (*self.records, *runs) if record.state == "running"]


def snapshot(study: Study) -> Snapshot:
    """The study as it is now."""
    records = study.history.records()
    direction = study.facts.direction
    best = leader(records, direction)
    baseline = leader(records, direction, study.plan.baseline)
    return Snapshot(
        name=study.name,
        task=study.plan.task,
        metric=study.facts.metric,
        direction=direction,
        epochs=study.facts.epochs,
        steps_per_epoch=study.facts.steps_per_epoch,
        slots=study.slots.counts(),
        confirmed=confirmed(study),
        records=tuple(records),
        leader=best,
        baseline=baseline,
        baseline_family=study.plan.baseline,
        schedules={
            record.number: study.space.build(record.family, record.params)
            for record in (best, baseline)
            if record is not None
        },
    )
