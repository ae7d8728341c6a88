"""A study in the database: its plan and facts, and the life of its trials."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna import load_study
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from clrsearch.errors import PlanError, StudyError
from clrsearch.schedules import RateFunction, Trace, Value, trace
from clrsearch.search.features import Points
from clrsearch.search.history import DISCARDED, END, History, Record
from clrsearch.search.names import searches, unknown
from clrsearch.search.plan import BASELINE_EVERY, ConfirmPlan, StudyPlan
from clrsearch.search.posterior import Belief, Searched, beliefs
from clrsearch.search.propose import Proposal, propose
from clrsearch.search.pruner import PRUNERS
from clrsearch.search.rangetest import RangeTest
from clrsearch.search.sampler import distributions
from clrsearch.search.space import StudySpace, build_space
from clrsearch.search.stored import ATTRIBUTE, ROW_ERRORS, Stage, read_stored, unreadable
from clrsearch.search.traces import Traces
from clrsearch.storage import UNFINISHED, Database, Slot, Slots, Trials
from clrsearch.tasks import TaskFacts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONFIRMATION = ".confirm"  # at the end of the name
FINALIST = "finalist:"  # before the number of the trial
STOPPED = "clrsearch:stopped"
CANCELLED = "clrsearch:cancelled"
LOST = "lost"
"""The attribute of a trial that says how its workers were lost: exit code, last checkpoint."""
CURVES = ("rates", "momenta")
"""Attributes of a trial that are there to be looked at: they follow from its parameters."""
PATIENCE_SECONDS = 5.0  # for another process that is creating the same study
FIRST_SEED = 500_000  # of a search's further seeds: far from those of its confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A schedule that is confirmed."""

    family: str
    params: Mapping[str, Value]


class Study:
    """One study: what it was asked to do, what it knows of its task, its slots and its trials."""

    def __init__(self, database: Database, name: str) -> None:
        """Open a study.

        Raises:
            StudyError: there is none of this name (near ones are named), it is not ours, or what is
                stored of it is damaged.
        """
        self.name = name
        self.database = database
        self._storage: BaseStorage = get_storage(database.optuna)
        try:
            self._id = self._storage.get_study_id_from_name(name)
        except KeyError:
            raise StudyError(unknown(name, searches(database))) from None
        try:
            attribute = self._storage.get_study_user_attrs(self._id).get(ATTRIBUTE)
        except ValueError as error:  # no JSON
            raise unreadable(name, error) from error
        if attribute is None:
            raise StudyError(f"{name} is a study of Optuna's that clrsearch did not make")
        stored = read_stored(name, attribute)
        self.uuid = str(stored.uuid)
        self.stage: Stage = stored.stage
        self._link = stored.confirms
        self.slots = Slots(database.engine, self.uuid, self.stage)
        self.versions: Mapping[str, str] = stored.versions
        self.created = stored.created
        self.facts = stored.facts
        self.range_test = stored.range_test
        try:
            total = self.slots.counts().total()
        except ValueError as error:  # of a state that there is not
            raise unreadable(name, error, attribute) from error
        self.plan = stored.plan.model_copy(update={"trials": max(stored.plan.trials, total)})
        try:
            self.space: StudySpace = build_space(self.plan, self.facts, tested=self.range_test)
        except (PlanError, *ROW_ERRORS) as error:
            raise unreadable(name, error, attribute) from error
        self._compare()
        self._trials = Trials(database.engine, self._id, unread=CURVES)
        self.history = History(self._trials, name)
        self._trial_ids: dict[int, int] = {}
        self._rate_function: RateFunction | None = None
        self._believed: tuple[int, Mapping[int, Belief]] | None = None  # after how many ends
        self._sibling: Study | None = None  # opened once: it keeps the runs that it has read

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
        confirms: Study | None = None,
    ) -> Study:
        """Make a study; one that another process has just made is opened instead.

        A search gets its slots; those of a confirmation, which ``confirms`` one, come with its
        finalists. ``range_test`` is the one that the plan wants.

        Raises:
            PlanError: the plan cannot be searched.
            StudyError: the name is taken by another kind of study.
        """
        # what cannot be searched is refused before anything is written
        build_space(plan, facts, tested=range_test)
        storage = get_storage(database.optuna)
        direction = StudyDirection[facts.direction.upper()]
        try:
            study_id = storage.create_new_study([direction], name)
        except DuplicatedStudyError:
            study_id = storage.get_study_id_from_name(name)
            if not _half_made(storage, study_id, direction) or _appears(storage, study_id):
                return cls._there(database, name, confirms)
        link = None if confirms is None else {"uuid": confirms.uuid, "name": confirms.name}
        stored = {
            "uuid": str(uuid.uuid4()),
            "stage": "search" if confirms is None else "confirm",
            "confirms": link,
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
            "plan": plan.model_dump(mode="json"),
            "facts": facts.model_dump(mode="json"),
            "versions": dict(versions),
            "range_test": None if range_test is None else range_test.model_dump(mode="json"),
        }
        storage.set_study_user_attr(study_id, ATTRIBUTE, stored)
        study = cls(database, name)
        if confirms is None:
            study.grow(plan.trials)
        return study

    @classmethod
    def _there(cls, database: Database, name: str, confirms: Study | None) -> Study:
        """The study of this name, if it is what was going to be made."""
        study = cls(database, name)
        if confirms is None and study.stage == "confirm":
            raise StudyError(
                f"{name} is the confirmation of {study.confirms}: give another name with --name"
            )
        if confirms is not None and not confirms._is_confirmed_by(name):
            raise StudyError(f"{name} is not the confirmation of {confirms.name}")
        return study

    def bind(self, rate_function: RateFunction) -> None:
        """Give it the function that its plan names for the rates by hand; needed for their traces.

        Raises:
            PlanError: the function gives no positive number at some step.
        """
        self._rate_function = rate_function
        self.space = build_space(self.plan, self.facts, rate_function, self.range_test)
        self._compare()

    def _compare(self) -> None:
        """Begin to compare the schedules of its space."""
        self.traces = Traces(self.space, self.facts)
        self.points = Points(self.space)

    def propose(self, slot: Slot, records: Sequence[Record]) -> Proposal:
        """The trial of a slot, given those of all others. The same history gives the same trial."""
        seed = np.random.SeedSequence((self.plan.seed, slot.number)).generate_state(1)[0]
        rank = self.slots.rank(slot)
        return propose(slot.family, rank, records, self.searched, seed=int(seed))

    @property
    def searched(self) -> Searched:
        """What its proposals rest on."""
        return Searched(
            plan=self.plan,
            space=self.space,
            traces=self.traces,
            points=self.points,
            direction=self.facts.direction,
        )

    def beliefs(self) -> Mapping[int, Belief]:
        """What to believe of each complete trial, by number, after search and confirmation."""
        sibling = self.confirmation()
        records = self.history.records()
        runs = [] if sibling is None else sibling.history.records()
        told = sum(each.state != "running" for each in (*records, *runs))
        if self._believed is None or self._believed[0] != told:
            self._believed = told, beliefs(records, runs, self.searched)
        return self._believed[1]

    def keep_range_test(self, tested: RangeTest) -> None:
        """Store a range test beside a search that did not ask for one: its bounds stay."""
        self.range_test = tested
        self._store(range_test=tested.model_dump(mode="json"))

    def show_figure(self, name: str, figure: Figure) -> None:
        """Have optuna-dashboard show a figure with the study."""
        from optuna_dashboard import save_plotly_graph_object

        there = load_study(study_name=self.name, storage=self._storage)
        save_plotly_graph_object(there, figure, graph_object_id=name)

    def grow(self, trials: int) -> None:
        """Make it so many slots, if it has fewer.

        The baseline has one of them, unless there is only one.
        """
        if trials > self.plan.trials:
            self.plan = self.plan.model_copy(update={"trials": trials})
        plan = self.plan
        first = self.slots.first_of(plan.baseline)
        if first is None:
            first = min(plan.trials, BASELINE_EVERY) - 1 or BASELINE_EVERY - 1
        labels = plan.labels(first)
        self.slots.grow(labels, _seeds(labels, plan.seeds))

    def plan_confirmation(self, confirm: ConfirmPlan) -> None:
        """Change how the best will be confirmed."""
        self.plan = self.plan.model_copy(update={"confirm": confirm})
        stored = self._storage.get_study_user_attrs(self._id)[ATTRIBUTE]
        self._store(plan={**stored["plan"], "confirm": confirm.model_dump(mode="json")})

    def _store(self, **changes: Any) -> None:
        stored = self._storage.get_study_user_attrs(self._id)[ATTRIBUTE]
        self._storage.set_study_user_attr(self._id, ATTRIBUTE, {**stored, **changes})

    @property
    def confirms(self) -> str:
        """Of a confirmation: the name of its search."""
        return self._link.name if self._link else self.name.removesuffix(CONFIRMATION)

    def confirmation(self) -> Study | None:
        """The study in which the best of this one are run again, if it has begun."""
        if self._sibling is None and self.stage == "search":
            found = next(filter(self._is_confirmed_by, self._confirmation_names()), None)
            if found is not None:
                self._sibling = self._bound(Study(self.database, found))
        return self._sibling

    def _confirmation_names(self) -> tuple[str, str]:
        """What its confirmation is called, and what instead where that name is taken."""
        usual = f"{self.name}{CONFIRMATION}"
        return usual, f"{usual}.{self.uuid[:8]}"

    def _is_confirmed_by(self, name: str) -> bool:
        """Whether the study of this name is its confirmation, by the UUID that is stored there.

        Earlier versions stored none: theirs have the usual name, and came after their search.
        """
        try:
            study_id = self._storage.get_study_id_from_name(name)
        except KeyError:
            return False
        try:
            attribute = self._storage.get_study_user_attrs(study_id).get(ATTRIBUTE)
        except ValueError as error:  # no JSON
            raise unreadable(name, error) from error
        if not isinstance(attribute, dict) or attribute.get("stage") != "confirm":
            return False
        link = attribute.get("confirms")
        if link is None:
            return name == self._confirmation_names()[0] and study_id > self._id
        return isinstance(link, dict) and link.get("uuid") == self.uuid

    def again(self) -> Study:
        """The same study, opened anew: more may be asked of it by now.

        Raises:
            StudyError: it has been deleted, or another one has its name.
        """
        study = self._bound(Study(self.database, self.name))
        if study.uuid != self.uuid:
            raise StudyError(f"{self.name} was deleted, and another study has its name now")
        return study

    def _bound(self, sibling: Study) -> Study:
        if self._rate_function is not None:
            sibling.bind(self._rate_function)
        return sibling

    def stages(self) -> list[Study]:
        """This study, and its confirmation where that has begun."""
        sibling = self.confirmation()
        return [self] if sibling is None else [self, sibling]

    def confirm(self, candidates: Sequence[Record], runs: Sequence[tuple[int, int]]) -> Study:
        """Begin the confirmation, or add what is missing of these runs of the candidates.

        Each is the number of a candidate and a seed index. The search has run with seed index 0 and
        others from 500,000 on.
        """
        sibling = self.confirmation() or self._make_confirmation()
        known = sibling.finalists()
        for record in candidates:
            if record.number not in known:
                sibling._storage.set_study_user_attr(
                    sibling._id,
                    f"{FINALIST}{record.number}",
                    {"family": record.family, "params": dict(record.params)},
                )
        families = {record.number: record.family for record in candidates}
        sibling.slots.grow_runs(families, runs)
        return sibling

    def _make_confirmation(self) -> Study:
        usual, instead = self._confirmation_names()
        make = partial(
            Study.create,
            self.database,
            plan=self.plan,
            facts=self.facts,
            versions=self.versions,
            range_test=self.range_test,
            confirms=self,
        )
        try:
            return self._bound(make(usual))
        except StudyError:  # somebody else's
            return self._bound(make(instead))

    def finalists(self) -> dict[int, Finalist]:
        """Of a confirmation: what is run again, by the numbers of the search's trials."""
        attributes = self._storage.get_study_user_attrs(self._id)
        try:
            return {
                int(key.removeprefix(FINALIST)): Finalist(**value)
                for key, value in attributes.items()
                if key.startswith(FINALIST)
            }
        except ROW_ERRORS as error:
            raise unreadable(self.name, error) from error

    def trace(self, family: str, params: Mapping[str, Value]) -> Trace:
        """What a trial with these parameters plays to the optimizer, over the whole horizon."""
        ratios = self.space.ratios(params, self.facts)
        return trace(self.space.build(family, params), self.facts.horizon, ratios)

    def begin(
        self,
        slot: Slot,
        params: Mapping[str, Value],
        attributes: Mapping[str, Any],
        family: str | None = None,
    ) -> int:
        """Bear a running trial for a slot, whole and in one transaction; its number.

        ``family`` is that of the parameters, where the slot is for any.
        """
        family = family or slot.family
        again = {} if slot.finalist is None else {"finalist": slot.finalist}
        space = self.space.families[family]
        trial_id = self._storage.create_new_trial(
            self._id,
            create_trial(
                state=TrialState.RUNNING,
                params={f"{family}.{name}": value for name, value in params.items()},
                distributions={
                    f"{family}.{name}": each for name, each in distributions(space, params).items()
                },
                user_attrs={
                    "slot": slot.number,
                    "family": family,
                    "seed_index": slot.seed_index,
                    **again,
                    **attributes,
                },
            ),
        )
        number = self._storage.get_trial_number_from_id(trial_id)
        self._trial_ids[number] = trial_id
        return number

    def resume(self, trial: int, attributes: Mapping[str, Any]) -> bool:
        """Note who goes on with a running trial; False where it has ended."""
        try:
            for name, attribute in attributes.items():
                self._storage.set_trial_user_attr(self._trial_id(trial), name, attribute)
        except UpdateFinishedTrialError:
            return False
        return True

    def note_loss(self, trial: int, worker: str, code: int, checkpoint: int | None) -> None:
        """Note with which exit code a trial's worker was lost, after the checkpoint of an epoch."""
        lost = {**self._losses(trial), worker: [code, checkpoint]}
        self.resume(trial, {LOST: lost})

    def loss_codes(self, trial: int, checkpoint: int | None) -> list[int]:
        """The exit codes of workers that were lost since the last checkpoint, where noted."""
        return [code for code, since in self._losses(trial).values() if since == checkpoint]

    def _losses(self, trial: int) -> dict[str, list[Any]]:
        trial_id = self._trial_id(trial)
        found = self._trials.attributes([trial_id], [LOST])[trial_id]
        return dict(found.get(LOST, {}))

    def report(self, trial: int, values: Mapping[int, float]) -> bool:
        """Store the metric of some finished epochs at once; False where the trial has ended."""
        return self._trials.report(self._trial_id(trial), values)

    def prunes(self, trial: int) -> bool:
        """Whether a pruner of Optuna's that the plan names stops a trial, by what is stored."""
        pruner = PRUNERS[self.plan.pruner](self.facts.epochs)
        study = load_study(study_name=self.name, storage=self._storage, pruner=pruner)
        return pruner.prune(study, self._storage.get_trial(self._trial_id(trial)))

    def complete(self, trial: int, value: float, attributes: Mapping[str, Any]) -> bool:
        """End a trial with its last epoch's value; False where it has ended."""
        return self._end(trial, TrialState.COMPLETE, attributes, value)

    def prune(self, trial: int, attributes: Mapping[str, Any], *, diverged: bool = False) -> bool:
        """End a trial early; False where it has ended.

        One that diverged is infeasible, so that samplers shun its like.
        """
        return self._end(trial, TrialState.PRUNED, attributes, diverged=diverged)

    def fail(self, trial: int, attributes: Mapping[str, Any]) -> bool:
        """End a trial whose task raised; False where it has ended."""
        return self._end(trial, TrialState.FAIL, attributes)

    def discard(self, trial: int) -> None:
        """End a trial that was begun twice for one slot, and leave it out of the history."""
        if self.resume(trial, {DISCARDED: True}):
            self._end(trial, TrialState.FAIL, {})

    def discard_orphans(self) -> None:
        """Discard what still runs for slots that have ended: it was begun twice."""
        ended = {slot for slot, state in self.slots.states().items() if state not in UNFINISHED}
        for record in self.history.records():
            if record.state == "running" and record.slot in ended:
                self.discard(record.number)

    def _end(
        self,
        trial: int,
        state: TrialState,
        attributes: Mapping[str, Any],
        value: float | None = None,
        *,
        diverged: bool = False,
    ) -> bool:
        try:
            if diverged:
                key = "constraints:diverged"  # what Trial.set_constraint writes
                self._storage.set_trial_system_attr(self._trial_id(trial), key, 1.0)
            self._storage.set_trial_user_attr(self._trial_id(trial), END, dict(attributes))
            values = None if value is None else [value]
            self._storage.set_trial_state_values(self._trial_id(trial), state, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            self._trial_ids[number] = self._storage.get_trial_id_from_study_id_trial_number(
                self._id, number
            )
        return self._trial_ids[number]

    def trial(self, number: int) -> Record:
        """The record of one trial.

        Raises:
            StudyError: there is none of this number.
        """
        records = self.history.records()
        for record in records:
            if record.number == number:
                return record
        has = f"it has 0 to {records[-1].number}" if records else "it has none yet"
        raise StudyError(f"{self.name} has no trial {number}; {has}")

    @property
    def id(self) -> int:
        """Optuna's number of the study in its database."""
        return self._id

    @property
    def is_there(self) -> bool:
        """Whether it has not been deleted since it was opened."""
        try:
            stored = self._storage.get_study_user_attrs(self._id).get(ATTRIBUTE)
        except KeyError:
            return False
        return stored is not None and stored["uuid"] == self.uuid

    @property
    def stopped(self) -> str | None:
        """The traceback for which the study was stopped, or None."""
        attributes = self._storage.get_study_user_attrs(self._id)
        return attributes.get(STOPPED) or None

    def stop(self, traceback: str | None) -> None:
        """Tell every worker to leave, for this reason; None lets them work again."""
        self._storage.set_study_user_attr(self._id, STOPPED, traceback or "")

    @property
    def cancelled(self) -> bool:
        """Whether no confirmation begins by itself any more, read anew."""
        return any(
            each._storage.get_study_user_attrs(each._id).get(CANCELLED, False)
            for each in self.stages()
        )

    def cancel(self) -> int:
        """Begin nothing more, a confirmation included; how many slots had not begun.

        What was interrupted has begun: it is still resumed.
        """
        self._storage.set_study_user_attr(self._id, CANCELLED, True)
        return sum(each.slots.cancel() for each in self.stages())

    def allow_confirmation(self) -> None:
        """Let a confirmation begin again, after :meth:`cancel`."""
        for each in self.stages():
            each._storage.set_study_user_attr(each._id, CANCELLED, False)

    def delete(self) -> None:
        """Remove the study, its trials and its slots, and its confirmation."""
        sibling = self.confirmation()
        if sibling is not None:
            sibling.delete()
        self.slots.delete()
        self._storage.delete_study(self._id)


def _seeds(labels: Sequence[str], seeds: int) -> list[int]:
    """The seed index of each slot: every label's slots begin from each of the ``seeds`` in turn.

    The first is 0, as in a search by one seed.
    """
    met: Counter[str] = Counter()
    found = []
    for label in labels:
        turn = met[label] % seeds
        found.append(turn and FIRST_SEED + turn)
        met[label] += 1
    return found


def _appears(storage: BaseStorage, study_id: int) -> bool:
    """Whether the study's maker writes its plan within a few seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if ATTRIBUTE in storage.get_study_user_attrs(study_id):
            return True
        time.sleep(0.1)
    return False


def _half_made(storage: BaseStorage, study_id: int, direction: StudyDirection) -> bool:
    """Whether a study without a plan is what a maker of ours left that was killed half-way."""
    return (
        storage.get_n_trials(study_id) == 0
        and storage.get_study_directions(study_id) == [direction]
        and not storage.get_study_user_attrs(study_id)
    )
