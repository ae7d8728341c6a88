"""A study in the database: its plan and facts, its slots, and the life cycle of its trials."""

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
from clrsearch.search.plan import BASELINE_EVERY, ConfirmPlan, StudyPlan
from clrsearch.search.posterior import Belief, Searched, beliefs
from clrsearch.search.propose import Proposal, propose
from clrsearch.search.pruner import PRUNERS
from clrsearch.search.rangetest import RangeTest
from clrsearch.search.sampler import distributions
from clrsearch.search.space import StudySpace, build_space
from clrsearch.search.stored import ATTRIBUTE, ROW_ERRORS, Stage, read_stored, unreadable
from clrsearch.search.study_names import searches, unknown
from clrsearch.search.traces import Traces
from clrsearch.storage import UNFINISHED, Database, Slot, Slots, Trials
from clrsearch.tasks import TaskFacts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONFIRMATION = ".confirm"  # suffix of the name
FINALIST = "finalist:"  # prefix of the trial number in the attribute's key
STOPPED = "clrsearch:stopped"
CANCELLED = "clrsearch:cancelled"
LOST = "lost"
"""Trial attribute with the losses of its workers: exit code and last checkpoint, by worker."""
CURVES = ("rates", "momenta")
"""Trial attributes for display only; they follow from the parameters."""
PATIENCE_SECONDS = 5.0  # wait for another process that is creating the same study
FIRST_SEED = 500_000  # of a search's additional seeds: far from those of its confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A schedule to confirm."""

    family: str
    params: Mapping[str, Value]


class Study:
    """One study: its plan, its task's facts, its slots and its trials."""

    def __init__(self, database: Database, name: str) -> None:
        """Open a study.

        Raises:
            StudyError: no study has this name (similar names are suggested), clrsearch did not
                create it, or its stored data is damaged.
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
        except ValueError as error:  # not JSON
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
        except ValueError as error:  # unknown state
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
        self._believed: tuple[int, Mapping[int, Belief]] | None = None  # ended trials, beliefs
        self._sibling: Study | None = None  # opened once, so that it keeps the runs it has read

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
        """Create a study, or open it if another process has just created it.

        A search gets its slots right away; a confirmation gets them with its finalists.

        Args:
            database: where to create it.
            name: the study's name.
            plan: the study's plan.
            facts: the task's facts.
            versions: versions of the software that creates it.
            range_test: the range test, if the plan uses one.
            confirms: the search to confirm; None to create a search.

        Raises:
            PlanError: the plan cannot be searched.
            StudyError: the name is taken by another kind of study.
        """
        # reject an invalid plan before writing anything
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
        """Open the existing study of this name, if it is of the kind to be created."""
        study = cls(database, name)
        if confirms is None and study.stage == "confirm":
            raise StudyError(
                f"{name} is the confirmation of {study.confirms}: give another name with --name"
            )
        if confirms is not None and not confirms._is_confirmed_by(name):
            raise StudyError(f"{name} is not the confirmation of {confirms.name}")
        return study

    def bind(self, rate_function: RateFunction) -> None:
        """Set the function that the plan names for the manual rates; their traces need it.

        Raises:
            PlanError: the function returns something other than a positive number at some step.
        """
        self._rate_function = rate_function
        self.space = build_space(self.plan, self.facts, rate_function, self.range_test)
        self._compare()

    def _compare(self) -> None:
        """Set up the comparison of schedules in the study's space."""
        self.traces = Traces(self.space, self.facts)
        self.points = Points(self.space)

    def propose(self, slot: Slot, records: Sequence[Record]) -> Proposal:
        """Propose a slot's trial given all other trials; deterministic for the same history."""
        seed = np.random.SeedSequence((self.plan.seed, slot.number)).generate_state(1)[0]
        rank = self.slots.rank(slot)
        return propose(slot.family, rank, records, self.searched, seed=int(seed))

    @property
    def searched(self) -> Searched:
        """The inputs of the study's proposals."""
        return Searched(
            plan=self.plan,
            space=self.space,
            traces=self.traces,
            points=self.points,
            direction=self.facts.direction,
        )

    def beliefs(self) -> Mapping[int, Belief]:
        """Belief about each complete trial, by number, from the search and its confirmation."""
        sibling = self.confirmation()
        records = self.history.records()
        runs = [] if sibling is None else sibling.history.records()
        told = sum(each.state != "running" for each in (*records, *runs))
        if self._believed is None or self._believed[0] != told:
            self._believed = told, beliefs(records, runs, self.searched)
        return self._believed[1]

    def keep_range_test(self, tested: RangeTest) -> None:
        """Store a range test with a search that did not ask for one; its bounds stay unchanged."""
        self.range_test = tested
        self._store(range_test=tested.model_dump(mode="json"))

    def show_figure(self, name: str, figure: Figure) -> None:
        """Show a figure with the study in optuna-dashboard."""
        from optuna_dashboard import save_plotly_graph_object

        there = load_study(study_name=self.name, storage=self._storage)
        save_plotly_graph_object(there, figure, graph_object_id=name)

    def grow(self, trials: int) -> None:
        """Add slots up to ``trials`` in total.

        One in ten goes to the baseline, and at least one unless there is only one slot.
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
        """Change the confirmation's plan."""
        self.plan = self.plan.model_copy(update={"confirm": confirm})
        stored = self._storage.get_study_user_attrs(self._id)[ATTRIBUTE]
        self._store(plan={**stored["plan"], "confirm": confirm.model_dump(mode="json")})

    def _store(self, **changes: Any) -> None:
        stored = self._storage.get_study_user_attrs(self._id)[ATTRIBUTE]
        self._storage.set_study_user_attr(self._id, ATTRIBUTE, {**stored, **changes})

    @property
    def confirms(self) -> str:
        """The name of the search that this study confirms."""
        return self._link.name if self._link else self.name.removesuffix(CONFIRMATION)

    def confirmation(self) -> Study | None:
        """The study that confirms this one, or None if it has not started."""
        if self._sibling is None and self.stage == "search":
            found = next(filter(self._is_confirmed_by, self._confirmation_names()), None)
            if found is not None:
                self._sibling = self._bound(Study(self.database, found))
        return self._sibling

    def _confirmation_names(self) -> tuple[str, str]:
        """The usual name of its confirmation, and the one to use if that is taken."""
        usual = f"{self.name}{CONFIRMATION}"
        return usual, f"{usual}.{self.uuid[:8]}"

    def _is_confirmed_by(self, name: str) -> bool:
        """Whether the study of this name confirms this one, by the UUID stored there.

        Earlier versions stored no UUID: their confirmations have the usual name and were created
        after the search.
        """
        try:
            study_id = self._storage.get_study_id_from_name(name)
        except KeyError:
            return False
        try:
            attribute = self._storage.get_study_user_attrs(study_id).get(ATTRIBUTE)
        except ValueError as error:  # not JSON
            raise unreadable(name, error) from error
        if not isinstance(attribute, dict) or attribute.get("stage") != "confirm":
            return False
        link = attribute.get("confirms")
        if link is None:
            return name == self._confirmation_names()[0] and study_id > self._id
        return isinstance(link, dict) and link.get("uuid") == self.uuid

    def again(self) -> Study:
        """Reopen the study, since its plan may have changed.

        Raises:
            StudyError: it has been deleted, or another study now has its name.
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
        """This study, and its confirmation if that has started."""
        sibling = self.confirmation()
        return [self] if sibling is None else [self, sibling]

    def confirm(self, candidates: Sequence[Record], runs: Sequence[tuple[int, int]]) -> Study:
        """Start the confirmation, or add the missing ones of these runs.

        Each run is a candidate's trial number and a seed index. The search itself used seed index 0
        and indices from 500,000 on.
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
        except StudyError:  # the name is taken by another study
            return self._bound(make(instead))

    def finalists(self) -> dict[int, Finalist]:
        """The finalists of this confirmation, by trial number in the search."""
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
        """Rates and momenta of a trial with these parameters at every step of the horizon."""
        ratios = self.space.ratios(params, self.facts)
        return trace(self.space.build(family, params), self.facts.horizon, ratios)

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
        """Record which worker resumes a running trial; False if the trial has ended."""
        try:
            for name, attribute in attributes.items():
                self._storage.set_trial_user_attr(self._trial_id(trial), name, attribute)
        except UpdateFinishedTrialError:
            return False
        return True

    def note_loss(self, trial: int, worker: str, code: int, checkpoint: int | None) -> None:
        """Record a lost worker's exit code and the epoch of the trial's last checkpoint."""
        lost = {**self._losses(trial), worker: [code, checkpoint]}
        self.resume(trial, {LOST: lost})

    def loss_codes(self, trial: int, checkpoint: int | None) -> list[int]:
        """Recorded exit codes of the workers lost since the last checkpoint."""
        return [code for code, since in self._losses(trial).values() if since == checkpoint]

    def _losses(self, trial: int) -> dict[str, list[Any]]:
        trial_id = self._trial_id(trial)
        found = self._trials.attributes([trial_id], [LOST])[trial_id]
        return dict(found.get(LOST, {}))

    def report(self, trial: int, values: Mapping[int, float]) -> bool:
        """Store the metric of finished epochs in one call; False if the trial has ended."""
        return self._trials.report(self._trial_id(trial), values)

    def prunes(self, trial: int) -> bool:
        """Whether the plan's Optuna pruner stops the trial, given its stored values."""
        pruner = PRUNERS[self.plan.pruner](self.facts.epochs)
        study = load_study(study_name=self.name, storage=self._storage, pruner=pruner)
        return pruner.prune(study, self._storage.get_trial(self._trial_id(trial)))

    def complete(self, trial: int, value: float, attributes: Mapping[str, Any]) -> bool:
        """Complete a trial with its last epoch's value; False if it has already ended."""
        return self._end(trial, TrialState.COMPLETE, attributes, value)

    def prune(self, trial: int, attributes: Mapping[str, Any], *, diverged: bool = False) -> bool:
        """Prune a trial; False if it has already ended.

        A diverged trial is marked infeasible, so that samplers avoid similar ones.
        """
        return self._end(trial, TrialState.PRUNED, attributes, diverged=diverged)

    def fail(self, trial: int, attributes: Mapping[str, Any]) -> bool:
        """Fail a trial; False if it has already ended."""
        return self._end(trial, TrialState.FAIL, attributes)

    def discard(self, trial: int) -> None:
        """Fail a trial that was created twice for one slot, and exclude it from the history."""
        if self.resume(trial, {DISCARDED: True}):
            self._end(trial, TrialState.FAIL, {})

    def discard_orphans(self) -> None:
        """Discard trials that still run for finished slots: they were created twice."""
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
            StudyError: there is no trial of this number.
        """
        records = self.history.records()
        for record in records:
            if record.number == number:
                return record
        has = f"it has 0 to {records[-1].number}" if records else "it has none yet"
        raise StudyError(f"{self.name} has no trial {number}; {has}")

    @property
    def id(self) -> int:
        """Optuna's id of the study in its database."""
        return self._id

    @property
    def is_there(self) -> bool:
        """Whether the study still exists in the database."""
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
        """Stop all workers, with the traceback as the reason; None lets them work again."""
        self._storage.set_study_user_attr(self._id, STOPPED, traceback or "")

    @property
    def cancelled(self) -> bool:
        """Whether the study was cancelled, so that no confirmation starts by itself; re-read."""
        return any(
            each._storage.get_study_user_attrs(each._id).get(CANCELLED, False)
            for each in self.stages()
        )

    def cancel(self) -> int:
        """Cancel all slots that have not started, the confirmation's included; returns the count.

        Interrupted trials have started and are still resumed.
        """
        self._storage.set_study_user_attr(self._id, CANCELLED, True)
        return sum(each.slots.cancel() for each in self.stages())

    def allow_confirmation(self) -> None:
        """Allow a confirmation to start again after :meth:`cancel`."""
        for each in self.stages():
            each._storage.set_study_user_attr(each._id, CANCELLED, False)

    def delete(self) -> None:
        """Delete the study with its trials, slots and confirmation."""
        sibling = self.confirmation()
        if sibling is not None:
            sibling.delete()
        self.slots.delete()
        self._storage.delete_study(self._id)


def _seeds(labels: Sequence[str], seeds: int) -> list[int]:
    """The seed index of each slot: slots of the same label cycle through the ``seeds``.

    The first seed's index is 0, as in a search with a single seed.
    """
    met: Counter[str] = Counter()
    found = []
    for label in labels:
        turn = met[label] % seeds
        found.append(turn and FIRST_SEED + turn)
        met[label] += 1
    return found


def _appears(storage: BaseStorage, study_id: int) -> bool:
    """Whether the process creating the study writes its plan within a few seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if ATTRIBUTE in storage.get_study_user_attrs(study_id):
            return True
        time.sleep(0.1)
    return False


def _half_made(storage: BaseStorage, study_id: int, direction: StudyDirection) -> bool:
    """Whether a study without a plan was left by a process of ours killed while creating it."""
    return (
        storage.get_n_trials(study_id) == 0
        and storage.get_study_directions(study_id) == [direction]
        and not storage.get_study_user_attrs(study_id)
    )
