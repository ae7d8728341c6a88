"""A study at one moment, as plain data: what every other report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clrsearch.reports.confirmed import Confirmed, confirmed
from clrsearch.schedules import Schedule
from clrsearch.search import Record, Study, Verdict, leader
from clrsearch.storage import SlotState, budget, unfinished
from clrsearch.tasks import Direction

ENDS = (SlotState.COMPLETE, SlotState.PRUNED, SlotState.DIVERGED, SlotState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a study has come.

    ``search_best`` is the complete trial with the best score, ``baseline`` the best of the
    baseline's.

    ``slots`` counts the slots by state; ``records`` are all trials in the order of their numbers.
    ``confirmed`` is the confirmation, where that has begun. ``expected_best`` is, of a search that
    has ended, the trial that is expected to be best on further seeds; None where nobody can tell.
    """

    name: str
    task: str
    metric: str
    direction: Direction
    epochs: int
    steps_per_epoch: int
    slots: Mapping[SlotState, int]
    confirmed: Confirmed | None = field(repr=False)
    records: Sequence[Record] = field(repr=False)
    search_best: Record | None
    baseline: Record | None
    baseline_family: str
    schedules: Mapping[int, Schedule] = field(repr=False)
    expected_best: Record | None = None

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
        """The trial to use: the one that the verdict has chosen.

        Without a verdict it is the one that is expected to be best, else the search best.
        """
        if self.verdict is None:
            return self.expected_best or self.search_best
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
    slots = study.slots.counts()
    expected = None if unfinished(slots) else _expected_best(study, records)
    return Snapshot(
        name=study.name,
        task=study.plan.task,
        metric=study.facts.metric,
        direction=direction,
        epochs=study.facts.epochs,
        steps_per_epoch=study.facts.steps_per_epoch,
        slots=slots,
        confirmed=confirmed(study),
        records=tuple(records),
        search_best=best,
        baseline=baseline,
        baseline_family=study.plan.baseline,
        schedules={
            record.number: study.space.build(record.family, record.params)
            for record in (best, baseline, expected)
            if record is not None
        },
        expected_best=expected,
    )


def _expected_best(study: Study, records: Sequence[Record]) -> Record | None:
    sign = 1.0 if study.facts.direction == "minimize" else -1.0
    believed = study.beliefs()
    known = [record for record in records if record.number in believed]
    return min(known, key=lambda each: sign * believed[each.number].mean, default=None)
