"""Snapshot of a study, as plain data; the input of all other reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clrsearch.results.confirmation import Confirmed, confirmed
from clrsearch.results.horizon import Horizon, read_horizon
from clrsearch.schedules import Schedule
from clrsearch.search import Record, Study, Verdict, leader
from clrsearch.storage import SlotState, budget, unfinished
from clrsearch.tasks import Direction, Spacing, sign_of

ENDS = (SlotState.COMPLETE, SlotState.PRUNED, SlotState.DIVERGED, SlotState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Progress and results of a study.

    Attributes:
        name: the study's name.
        task: the task's name.
        metric: the metric that is optimized.
        direction: whether it is minimized or maximized.
        spacing: the length of a complete trial, and where it is validated.
        slots: number of slots by state.
        confirmed: the confirmation, if it has started.
        records: all trials by number.
        search_best: the complete trial with the best score.
        baseline: the baseline's complete trial with the best score.
        baseline_family: the family of the baseline.
        schedules: the schedules of ``search_best``, ``baseline``, ``expected_best`` and the
            recommended trial, by trial.
        expected_best: the trial with the best expected score on further seeds; None while the
            search runs, or without an estimate.
        horizon: the best schedules by length, if the study asks for them.
    """

    name: str
    task: str
    metric: str
    direction: Direction
    spacing: Spacing = field(repr=False)
    slots: Mapping[SlotState, int]
    confirmed: Confirmed | None = field(repr=False)
    records: Sequence[Record] = field(repr=False)
    search_best: Record | None
    baseline: Record | None
    baseline_family: str
    schedules: Mapping[int, Schedule] = field(repr=False)
    expected_best: Record | None = None
    horizon: Horizon | None = field(default=None, repr=False)

    @property
    def total(self) -> int:
        """Number of slots, except cancelled ones."""
        return budget(self.slots)

    @property
    def done(self) -> int:
        """Number of slots that have ended."""
        return budget(self.slots) - unfinished(self.slots)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on fresh seeds, if all finalists have run with a common seed."""
        return self.confirmed.verdict if self.confirmed else None

    @property
    def recommended(self) -> Record | None:
        """The recommended trial: the one the verdict has chosen.

        Without a verdict it is the expected best, or else the search best; of several lengths, the
        best of the longest.
        """
        if self.horizon is not None:  # not the best score, which the length decides
            return self.expected_best
        if self.verdict is None:
            return self.expected_best or self.search_best
        return next(each for each in self.records if each.number == self.verdict.chosen)

    @property
    def shared(self) -> tuple[int, int]:
        """The epochs that no trial trained, as another had, and those of all trials, with runs."""
        runs = self.confirmed.runs if self.confirmed else ()
        trials = (*self.records, *runs)
        return sum(each.inherited for each in trials), sum(each.epoch for each in trials)

    @property
    def running(self) -> list[Record]:
        """The running trials, including confirmation runs."""
        runs = self.confirmed.runs if self.confirmed else ()
        return [record for record in (*self.records, *runs) if record.state == "running"]


def snapshot(study: Study) -> Snapshot:
    """Take a snapshot of a study."""
    records = study.history.records()
    direction = study.facts.direction
    best = leader(records, direction)
    baseline = leader(records, direction, study.plan.baseline)
    slots = study.slots.counts()
    horizon = None if study.plan.horizon is None else read_horizon(study)
    if horizon is not None:
        expected = horizon.lengths[-1].trial if horizon.lengths else None
    else:
        expected = None if unfinished(slots) else _expected_best(study, records)
    found = confirmed(study)
    chosen = found.verdict.chosen if found and found.verdict else None
    shown = [best, baseline, expected, *(each for each in records if each.number == chosen)]
    return Snapshot(
        name=study.name,
        task=study.plan.task,
        metric=study.facts.metric,
        direction=direction,
        spacing=study.facts.spacing,
        slots=slots,
        confirmed=found,
        records=tuple(records),
        search_best=best,
        baseline=baseline,
        baseline_family=study.plan.baseline,
        schedules={
            record.number: study.space.build(record.family, record.params)
            for record in shown
            if record is not None
        },
        expected_best=expected,
        horizon=horizon,
    )


def _expected_best(study: Study, records: Sequence[Record]) -> Record | None:
    sign = sign_of(study.facts.direction)
    believed = study.beliefs()
    known = [record for record in records if record.number in believed]
    return min(known, key=lambda each: sign * believed[each.number].mean, default=None)
