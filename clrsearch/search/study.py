"""A study: its plan and facts, its slots and trials, and the decisions made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna import load_study

from clrsearch.errors import PlanError, StudyError
from clrsearch.schedules import RateFunction, Trace, Value, trace
from clrsearch.search.history import History, Record
from clrsearch.search.horizon_runs import EPOCHS, Planned, count, planned
from clrsearch.search.plan import BASELINE_EVERY, LIMITS, ConfirmPlan, StudyPlan, search_seed
from clrsearch.search.posteriors import Belief, Searched, beliefs
from clrsearch.search.prefixes import held, parting_intervals
from clrsearch.search.progress import Progress
from clrsearch.search.proposing import Proposal, propose
from clrsearch.search.pruner import PRUNERS
from clrsearch.search.rangetest import RangeTest
from clrsearch.search.repository import Finalist, Granted, Studies
from clrsearch.search.sampler import distributions
from clrsearch.search.space import StudySpace, build_space
from clrsearch.search.spending import further_trials, purses
from clrsearch.search.study_record import ROW_ERRORS, Stage, StudyRecord, unreadable
from clrsearch.search.trace_features import Points
from clrsearch.search.traces import Traces
from clrsearch.search.trial_log import TrialLog
from clrsearch.search.warm_start import EarlierStudy, WarmStart
from clrsearch.storage import UNFINISHED, Database, Slot, Slots, Trials, budget, read_clock
from clrsearch.tasks import TaskFacts

CURVES = ("rates", "momenta")
"""Trial attributes for display only; they follow from the parameters."""
FIRST_LOT = 10
"""The most slots that an open-ended search begins with."""
USUAL = 100
"""Number of trials that proposals expect of an open-ended search, or its limit if that is less."""


class Study:
    """One study: a search, or the confirmation of one.

    Attributes:
        record: its plan, its task's facts and versions, as created.
        plan: its present plan; if it is open-ended, ``trials`` is the number of slots so far, and
            that of ``limits`` the limit.
        slots: its slots.
        history: its trials, as read.
        log: its trials, as written.
        space: the space it searches.
        traces: the comparison of schedules in that space.
        points: the features of schedules in that space.
    """

    def __init__(self, studies: Studies, record: StudyRecord) -> None:
        """Use the study of a ``record``; reads nothing from the database.

        Raises:
            PlanError: its plan cannot be searched.
        """
        self._studies = studies
        self.record = record
        self.plan: StudyPlan = record.plan
        self.slots = Slots(studies.database.engine, self.uuid, record.stage)
        trials = Trials(studies.database.engine, record.id, unread=CURVES)
        self.history = History(trials, record.name)
        self.log = TrialLog(studies.storage, record.id, trials)
        self._rate_function: RateFunction | None = None
        self._believed: tuple[int, Mapping[int, Belief]] | None = None  # ended trials, beliefs
        self._sibling: Study | None = None  # opened once, so that it keeps the runs it has read
        self._set_space()

    @classmethod
    def open(cls, database: Database, name: str) -> Study:
        """Open a study.

        Raises:
            StudyError: no study has this name (similar names are suggested), clrsearch did not
                create it, or its stored data is damaged.
        """
        studies = Studies(database)
        return cls._opened(studies, studies.read(name))

    @classmethod
    def _opened(cls, studies: Studies, record: StudyRecord) -> Study:
        """The study of a record; it has as many trials as slots, or more are still to be added."""
        try:
            study = cls(studies, record)
            counts = study.slots.counts()
        except (PlanError, *ROW_ERRORS) as error:
            raise unreadable(record.name, error, record.model_dump()) from error
        trials = max(record.plan.trials, counts.total())
        if record.plan.open_ended:
            trials = budget(counts)
        study.plan = record.plan.model_copy(update={"trials": trials})
        return study

    @classmethod
    def create(
        cls,
        database: Database,
        name: str,
        plan: StudyPlan,
        facts: TaskFacts,
        versions: Mapping[str, str],
        *,
        range_test: RangeTest | None = None,
        earlier: Sequence[EarlierStudy] = (),
        granted: Granted | None = None,
    ) -> Study:
        """Create a search with its slots, or open it if another process has just created it.

        ``earlier`` is what it takes over from earlier studies, and ``granted`` what it may take.
        An open-ended search begins with few slots, and no more than its budget pays for.

        Raises:
            PlanError: the plan cannot be searched.
            StudyError: the name is taken by another kind of study.
        """
        studies = Studies(database)
        record = studies.create(
            name, plan, facts, versions, range_test=range_test, earlier=earlier, granted=granted
        )
        study = cls._opened(studies, record)
        study.grow(study._first_lot() if plan.open_ended else study.plan.trials)
        return study

    def _first_lot(self) -> int:
        plan, seconds = self.record.plan, self.granted.interval_seconds
        found = purses(plan, self.facts, (), interval_seconds=seconds)
        return min(plan.trials, FIRST_LOT, max(further_trials(found, plan), 1))

    @property
    def database(self) -> Database:
        """The database it is in."""
        return self._studies.database

    @property
    def id(self) -> int:
        """Optuna's id of the study in its database."""
        return self.record.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def uuid(self) -> str:
        """What identifies it, even if another study gets its name."""
        return str(self.record.uuid)

    @property
    def stage(self) -> Stage:
        """Whether it is a search or a confirmation."""
        return self.record.stage

    @property
    def facts(self) -> TaskFacts:
        """The facts about its task."""
        return self.record.facts

    @property
    def range_test(self) -> RangeTest | None:
        """The range test run for it, if any."""
        return self.record.range_test

    def bind(self, rate_function: RateFunction) -> None:
        """Set the function that the plan names for the manual rates; their traces need it.

        Raises:
            PlanError: the function returns something other than a positive number at some step.
        """
        self._rate_function = rate_function
        self._set_space()

    def _set_space(self) -> None:
        self.space: StudySpace = build_space(
            self.plan, self.facts, self._rate_function, self.range_test
        )
        self.traces = Traces(self.space, self.facts)
        self.points = Points(self.space)
        self._warm_start: WarmStart | None = None

    @property
    def warm_start(self) -> WarmStart | None:
        """What proposals take from earlier studies, None without any; read when first used."""
        if self._warm_start is None and self.record.earlier:
            self._warm_start = WarmStart(self._studies.earlier(self.record), self.space)
        return self._warm_start

    def propose(self, slot: Slot, records: Sequence[Record]) -> Proposal:
        """Propose a slot's trial given all other trials; deterministic for the same history."""
        seed = np.random.SeedSequence((self.plan.seed, slot.number)).generate_state(1)[0]
        rank = self.slots.rank(slot)
        return propose(
            slot.family,
            rank,
            records,
            self.searched,
            seed=int(seed),
            seed_index=slot.seed_index,
            warm=self.warm_start,
        )

    @property
    def searched(self) -> Searched:
        """The inputs of the study's proposals.

        They take the size of an open-ended search to be the same in all workers, whatever the
        number of slots so far.
        """
        plan = self.plan
        if plan.open_ended:
            size = min(self.record.plan.trials, USUAL)
            plan = plan.model_copy(update={"trials": size})
        return Searched(
            plan=plan,
            space=self.space,
            traces=self.traces,
            points=self.points,
            direction=self.facts.direction,
        )

    def beliefs(self) -> Mapping[int, Belief]:
        """Belief about each complete trial, by number, from the search and its confirmation.

        Nothing is believed of trials that differ in length.
        """
        if self.plan.horizon is not None:
            return {}
        sibling = self.confirmation()
        records = self.history.records()
        runs = [] if sibling is None else sibling.history.records()
        told = sum(each.state != "running" for each in (*records, *runs))
        if self._believed is None or self._believed[0] != told:
            self._believed = told, beliefs(records, runs, self.searched)
        return self._believed[1]

    def trace(self, family: str, params: Mapping[str, Value]) -> Trace:
        """Rates and momenta of a trial with these parameters at every step of the horizon."""
        ratios = self.space.ratios(params, self.facts)
        return trace(self.space.build(family, params), self.facts.horizon, ratios)

    def ends(self, params: Mapping[str, Value]) -> tuple[int, ...]:
        """The optimizer steps taken when each interval of such a trial ends."""
        return self.facts_of(params).ends

    def facts_of(self, params: Mapping[str, Value]) -> TaskFacts:
        """The facts of the task, with the length of a trial that may be shorter than others."""
        if EPOCHS not in params:
            return self.facts
        return self.facts.model_copy(update={"epochs": int(params[EPOCHS])})

    def planned(self, slot: int) -> Planned:
        """The trial of a slot in a study that is no search: all are planned in advance."""
        runs = self._planned()
        if slot >= len(runs):  # seeds have been added since this process opened the study
            horizon = self._studies.read(self.name).plan.horizon
            self.plan = self.plan.model_copy(update={"horizon": horizon})
            runs = self._planned()
        return runs[slot]

    def _planned(self) -> list[Planned]:
        return [] if self.plan.horizon is None else planned(self.plan.horizon, self.facts)

    def partings(self, slot: Slot, family: str, params: Mapping[str, Value]) -> set[int]:
        """The intervals at whose ends other trials of the slot's seed may part from its trial."""
        if self.stage == "confirm":
            others = self.finalists().values()
            traces = (self.trace(each.family, each.params) for each in others)
            return parting_intervals(self.trace(family, params), traces, self.facts.ends)
        if self.plan.horizon is not None:
            alike = (each for each in self._planned() if each.seed_index == slot.seed_index)
            traces = (self.trace(each.family, each.params) for each in alike)
            return parting_intervals(self.trace(family, params), traces, self.ends(params))
        if self.plan.trunks is None:
            return set()
        return held(self.trace(family, params), self.facts.ends)

    def begin(
        self,
        slot: Slot,
        params: Mapping[str, Value],
        attributes: Mapping[str, Any],
        family: str | None = None,
    ) -> int:
        """Create a RUNNING trial for a slot atomically and return its number.

        ``family`` is the family of ``params``; needed if the slot's own is ANY.
        """
        family = family or slot.family
        chosen_from = distributions(self.space.families[family], params)
        return self.log.begin(slot, family, params, chosen_from, attributes)

    def prunes(self, trial: int) -> bool:
        """Whether the plan's Optuna pruner stops the trial, given its stored values."""
        pruner = PRUNERS[self.plan.pruner](self.facts.intervals)
        study = load_study(study_name=self.name, storage=self._studies.storage, pruner=pruner)
        return pruner.prune(study, self.log.as_optuna(trial))

    def discard_orphans(self) -> None:
        """Discard trials that still run for finished slots: they were created twice."""
        ended = {slot for slot, state in self.slots.states().items() if state not in UNFINISHED}
        for record in self.history.records():
            if record.state == "running" and record.slot in ended:
                self.log.discard(record.number)

    def trial(self, number: int) -> Record:
        """The record of one trial.

        Raises:
            StudyError: there is no trial of this number.
        """
        records = self.history.records()
        for record in records:
            if record.number == number:
                return record
        has = f"it has trials 0 to {records[-1].number}" if records else "it has none yet"
        raise StudyError(f"{self.name} has no trial {number}; {has}")

    def grow(self, trials: int) -> None:
        """Add slots up to ``trials`` in total.

        One in ten goes to the baseline, and at least one unless there is only one slot.
        """
        if trials > self.plan.trials:
            self.plan = self.plan.model_copy(update={"trials": trials})
        plan = self.plan
        if plan.horizon is not None:
            runs = self._planned()
            self.slots.grow([run.family for run in runs], [run.seed_index for run in runs])
            return
        first = self.slots.first_of(plan.baseline)
        if first is None:
            first = min(plan.trials, BASELINE_EVERY) - 1 or BASELINE_EVERY - 1
        labels = plan.labels(first)
        self.slots.grow(labels, _seeds(labels, plan.seeds))

    def more_seeds(self, seeds: int) -> None:
        """Run the schedules of a horizon on so many seeds, if they are more than before."""
        horizon = self.plan.horizon
        if horizon is None or seeds <= horizon.seeds:
            return
        more = horizon.model_copy(update={"seeds": seeds})
        changes = {"horizon": more, "trials": count(more), "seeds": seeds}
        self.plan = self.plan.model_copy(update=changes)
        self._studies.change_plan(
            self.record, **{**changes, "horizon": more.model_dump(mode="json")}
        )

    def extend(self, trials: int) -> None:
        """Open slots until so many are not cancelled: cancelled ones first.

        Several workers that decide the same at once open them once.
        """
        self.slots.reopen(trials)
        counts = self.slots.counts()
        if (missing := trials - budget(counts)) > 0:
            self.grow(counts.total() + missing)

    def limit(self, asked: StudyPlan, granted: Granted) -> None:
        """Replace what limits the search by what is ``asked`` for and ``granted``; adds no slot."""
        limits = asked.model_dump(include=set(LIMITS))
        self._studies.grant(self.record, granted.model_copy(update={"limits": limits}))
        self._studies.change_plan(self.record, **limits)
        stored = self.record.plan.model_copy(update=limits)
        self.record = self.record.model_copy(update={"plan": stored})
        self.plan = self.plan.model_copy(update={**limits, "trials": self.plan.trials})

    @property
    def granted(self) -> Granted:
        """What the latest command has granted it; re-read."""
        return self._studies.granted(self.record)

    @property
    def limits(self) -> StudyPlan:
        """Its plan with the limits that the latest command has set; re-read."""
        return self.record.plan.model_copy(update=dict(self.granted.limits))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, by the database's clock; None if there is none; re-read."""
        deadline = self.granted.deadline
        return None if deadline is None else deadline - read_clock(self.database.engine)

    def plan_confirmation(self, confirm: ConfirmPlan) -> None:
        """Change the confirmation's plan."""
        self.plan = self.plan.model_copy(update={"confirm": confirm})
        self._studies.change_plan(self.record, confirm=confirm.model_dump(mode="json"))

    def keep_range_test(self, tested: RangeTest) -> None:
        """Store a range test with a search that did not ask for one; its bounds stay unchanged."""
        self.record = self.record.model_copy(update={"range_test": tested})
        self._studies.change(self.record, range_test=tested.model_dump(mode="json"))

    @property
    def confirms(self) -> str:
        """The name of the search that this study confirms."""
        return self.record.search

    def confirmation(self) -> Study | None:
        """The study that confirms this one, or None if it has not started."""
        if self._sibling is None and self.stage == "search":
            found = self._studies.confirmation(self.record)
            if found is not None:
                self._sibling = self._bound(self._opened(self._studies, found))
        return self._sibling

    def stages(self) -> list[Study]:
        """This study, and its confirmation if that has started."""
        sibling = self.confirmation()
        return [self] if sibling is None else [self, sibling]

    def under(self, condition: str) -> Study | None:
        """The confirmation under a changed condition, or None if it has not started."""
        found = self._studies.confirmation(self.record, condition)
        return None if found is None else self._opened(self._studies, found)

    def related(self) -> list[Study]:
        """The stages of this study, and its confirmations under changed conditions."""
        changed = map(self.under, self._studies.conditions(self.record))
        return [*self.stages(), *(each for each in changed if each is not None)]

    def progress(self) -> Progress:
        """What is left to do in this search and its confirmation; re-read."""
        sibling = self.confirmation()
        enabled = [self] if sibling is None or not self.plan.confirm.enabled else [self, sibling]
        return Progress(
            plan=self.plan,
            search=self.slots.counts(),
            confirmation=None if sibling is None else sibling.slots.counts(),
            live=sum(each.slots.live() for each in enabled),
            stopped=self.stopped is not None,
            confirmation_stopped=sibling is not None and sibling.stopped is not None,
            cancelled=self.cancelled,
        )

    def confirm(self, candidates: Sequence[Record], runs: Sequence[tuple[int, int]]) -> Study:
        """Start the confirmation, or add the missing ones of these runs.

        Each run is a candidate's trial number and a seed index. The search itself used seed index 0
        and indices from 500,000 on.
        """
        sibling = self.confirmation()
        if sibling is None:
            made = self._studies.create_confirmation(self.record, self.plan)
            sibling = self._bound(self._opened(self._studies, made))
        finalists = {
            each.number: Finalist(family=each.family, params=each.params) for each in candidates
        }
        sibling.add_runs(finalists, runs)
        return sibling

    def vary(self, condition: str, plan: StudyPlan, facts: TaskFacts) -> Study:
        """Start the confirmation under a changed condition, which ``plan`` and ``facts`` have.

        Raises:
            PlanError: the plan's families do not fit the task under this condition.
        """
        made = self._studies.create_confirmation(self.record, plan, facts, condition)
        return self._opened(self._studies, made)

    def add_runs(self, finalists: Mapping[int, Finalist], runs: Sequence[tuple[int, int]]) -> None:
        """Add the missing ones of these runs to this confirmation; see :meth:`confirm`."""
        known = self.finalists()
        for number, finalist in finalists.items():
            if number not in known:
                self._studies.add_finalist(self.record, number, finalist)
        families = {number: finalist.family for number, finalist in finalists.items()}
        self.slots.grow_runs(families, runs)

    def finalists(self) -> dict[int, Finalist]:
        """The finalists of this confirmation, by trial number in the search."""
        return self._studies.finalists(self.record)

    def reopen(self) -> Study:
        """Read the study anew, since its plan may have changed.

        Raises:
            StudyError: it has been deleted, or another study now has its name.
        """
        study = self._bound(self._opened(self._studies, self._studies.read(self.name)))
        if study.uuid != self.uuid:
            raise StudyError(f"{self.name} was deleted, and another study now has its name")
        return study

    def _bound(self, sibling: Study) -> Study:
        if self._rate_function is not None:
            sibling.bind(self._rate_function)
        return sibling

    @property
    def is_there(self) -> bool:
        """Whether the study still exists in the database."""
        return self._studies.is_there(self.record)

    @property
    def stopped(self) -> str | None:
        """The traceback for which the study was stopped, or None; re-read."""
        return self._studies.stopped(self.record)

    def stop(self, traceback: str | None) -> None:
        """Stop all workers, with the traceback as the reason; None lets them work again."""
        self._studies.stop(self.record, traceback)

    @property
    def device(self) -> str | None:
        """The kind of device that its first trial was trained on, such as cuda; None before."""
        first = next(iter(self.history.records()), None)
        return None if first is None else first.device.partition(":")[0]

    def note_departure(self, worker: str, reason: str) -> None:
        """Store why a worker leaves though slots are left."""
        self._studies.note_departure(self.record, worker, reason)

    def forget_departures(self) -> None:
        """Remove what :meth:`note_departure` has stored in this stage."""
        for worker in self._studies.departures(self.record):
            self._studies.note_departure(self.record, worker, "")

    def departures(self) -> Mapping[str, str]:
        """Why workers left though slots were left, by worker, the confirmation's included."""
        return {
            worker: reason
            for each in self.stages()
            for worker, reason in self._studies.departures(each.record).items()
        }

    def note_packing(self, text: str) -> None:
        """Store how the latest worker trains its trials, alone or in lanes, and why."""
        self._studies.note_packing(self.record, text)

    @property
    def packing(self) -> str:
        """What :meth:`note_packing` has stored; empty if nothing; re-read."""
        return self._studies.packing(self.record)

    @property
    def cancelled(self) -> bool:
        """Whether the study was cancelled, so that no confirmation starts by itself; re-read."""
        return any(self._studies.cancelled(each.record) for each in self.stages())

    def cancel(self) -> int:
        """Cancel all slots that have not started, confirmations' included; returns the count.

        Interrupted trials have started and are still resumed.
        """
        self._studies.cancel(self.record, cancelled=True)
        return sum(each.slots.cancel() for each in self.related())

    def allow_confirmation(self) -> None:
        """Allow a confirmation to start again after :meth:`cancel`."""
        for each in self.stages():
            self._studies.cancel(each.record, cancelled=False)

    def delete(self) -> None:
        """Delete the study with its trials, slots and confirmations."""
        for each in self.related()[1:]:
            each.delete()
        self.slots.delete()
        self._studies.delete(self.record)


def _seeds(labels: Sequence[str], seeds: int) -> list[int]:
    """The seed index of each slot: slots of the same label cycle through the ``seeds``."""
    met: Counter[str] = Counter()
    found = []
    for label in labels:
        found.append(search_seed(met[label] % seeds))
        met[label] += 1
    return found
