"""Read studies: the recommended schedule, lists, status, figures and replays of trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clrsearch import plots, proposals, training
from clrsearch.errors import PlanError, ScheduleError, StudyError
from clrsearch.plots import Figure
from clrsearch.results import (
    Confirmed,
    Snapshot,
    Status,
    ends,
    read_status,
    schedule_values,
    snapshot,
    source_code,
)
from clrsearch.schedules import Schedule, ScheduleFree, Trace, Value, execute, trace
from clrsearch.search import (
    Record,
    Rescaled,
    Studies,
    Study,
    StudyPlan,
    Verdict,
    load_plan,
    rescaled,
    respaced,
)
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import bind_rate, load_same
from clrsearch.storage import (
    PATIENCE_SECONDS,
    Patience,
    cause,
    has_studies,
    open_database,
)
from clrsearch.tasks import TaskFacts

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

WATCH_SECONDS = 2.0
CLOSE = 1e-4
"""Largest difference, relative to the metric, that is explained by the order of sums."""
Picture = Literal[
    "schedule", "scores", "curves", "trials", "progress", "time", "range-test", "horizon"
]
"""In order: the recommended schedule; scores and learning curves on fresh seeds; all trials'
learning curves; the best score so far over trials and over time; the losses of a range test; the
score by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The recommended schedule: chosen on fresh seeds, or the expected best without a verdict.

    Attributes:
        trial: the recommended trial.
        schedule: its schedule.
        values: the schedule's fields by name.
        multipliers: searched factors on the learning rates of parameter groups, by group name.
        ratios: the learning rate of each group relative to the first one's.
        code: source code of the schedule, in the requested format.
        make_scheduler: the function from the torch code. ``make_scheduler(optimizer,
            steps_per_epoch)`` returns a scheduler for a new optimizer, over the same number of
            epochs as in the search, to be stepped after every batch. If the search was for a number
            of steps, or for epochs that differ in length, it is ``make_scheduler(optimizer,
            total_steps)``. Schedule-Free has none.
        facts: the facts of the task, with the batch size and length that the schedule is for.
        verdict: the verdict on fresh seeds; None without one.
        rescaled: how the schedule was rescaled to another batch size or length, for which it is not
            confirmed; None if it is the trial's own.
    """

    trial: Record
    schedule: Schedule
    values: Mapping[str, Value]
    multipliers: Mapping[str, float]
    ratios: tuple[float, ...]
    code: str = field(repr=False)
    make_scheduler: Callable[..., LRScheduler] = field(repr=False)
    facts: TaskFacts = field(repr=False)
    verdict: Verdict | None = field(repr=False)
    rescaled: Rescaled | None = field(default=None, repr=False)

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number

    @property
    def params(self) -> Mapping[str, Value]:
        """The searched parameters of the trial; see ``values`` for the schedule's own fields."""
        return self.trial.params

    def trace(self) -> Trace:
        """The learning rates and momenta at every step; ``rates`` is a (groups, steps) array."""
        return trace(self.schedule, self.facts.horizon, self.ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A replayed trial.

    Attributes:
        trial: the stored trial.
        values: the replayed metric by epoch.
        device: the device of the replay.
        progress: what is counted in them: epochs or, if the study says when to validate,
            validations.
    """

    trial: Record
    values: Mapping[int, float]
    device: str
    progress: Literal["epoch", "validation"]

    @property
    def matches(self) -> bool:
        """Whether the metric is bitwise equal at every epoch."""
        return dict(self.trial.values) == dict(self.values)

    @property
    def agrees(self) -> bool:
        """Whether it matches, or differs by no more than sums in another order do.

        Only a trial that was not trained alone in one process, as it is here, may differ.
        """
        if self.matches or self.trial.ranks == self.trial.lanes == 1:
            return self.matches
        if self.trial.values.keys() != self.values.keys():
            return False
        most = max(map(abs, self.trial.values.values()), default=0.0)
        return self.largest_difference <= CLOSE * most

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference between stored and replayed metric over common epochs."""
        both = self.trial.values.keys() & self.values.keys()
        return max((abs(self.trial.values[e] - self.values[e]) for e in both), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A study and, optionally, one of its trials.

    Attributes:
        snapshot: the study.
        plan: its plan.
        trial: the requested trial, if any.
        rates: the trial's learning rate at the end of each epoch.
    """

    snapshot: Snapshot
    plan: StudyPlan
    trial: Record | None
    rates: tuple[float, ...]


def best(
    name: str,
    *,
    format: str = "torch",
    epochs: int | None = None,
    batch_size: int | None = None,
    storage: Storage = None,
    task_dir: Path | None = None,
) -> Best:
    """The recommended schedule, with its code in one of the ``clrsearch.exports.FORMATS``.

    With other ``epochs`` or another ``batch_size`` than the study's, it is rescaled by
    :mod:`clrsearch.search.rescaling`, and not confirmed. If the schedule uses a custom rate
    function, its file is read from ``task_dir``, or from the current folder.

    Raises:
        PlanError: there is no such format, or it cannot express the schedule; or a value is out of
            range, or the schedule cannot be rescaled to it.
        StudyError: no trial is complete yet.
        TaskError: the rate function does not load.
    """
    given = {"epochs": epochs, "batch_size": batch_size}
    load_plan(None, {key: each for key, each in given.items() if each is not None})  # their ranges
    with open_database(storage_url(storage)) as database:
        study = Study.open(database, name)
        trial, verdict = chosen(study, epochs)
        bind_rate(study, trial.family, task_dir)
        own = study.facts_of(trial.params)
        elsewhere = _rescaled(study, own, trial, epochs=epochs, batch_size=batch_size)
        if elsewhere is None:
            facts, schedule = own, study.space.build(trial.family, trial.params)
        else:
            facts, schedule = elsewhere.facts, elsewhere.schedule
        ratios = study.space.ratios(trial.params, study.facts)

        def written(format: str) -> str:
            leads = study.stage == "search"
            return source_code(study, trial, verdict, format, leads=leads, rescaled=elsewhere)

        code = written(format)

        def make_scheduler(optimizer: Optimizer, *length: int, **named: int) -> LRScheduler:
            if isinstance(schedule, ScheduleFree):
                raise PlanError(
                    "schedule_free is an optimizer and has no scheduler: use make_optimizer() of "
                    "its code"
                )
            torch = code if format == "torch" else written("torch")
            own = schedule.code(len(ratios)).own
            made: LRScheduler = execute(torch, own=own)(optimizer, *length, **named)
            return made

        return Best(
            trial=trial,
            schedule=schedule,
            values=schedule_values(schedule),
            multipliers=study.space.multipliers_of(trial.params),
            ratios=ratios,
            code=code,
            make_scheduler=make_scheduler,
            facts=facts,
            verdict=verdict,
            rescaled=elsewhere,
        )


def _rescaled(
    study: Study, own: TaskFacts, trial: Record, *, epochs: int | None, batch_size: int | None
) -> Rescaled | None:
    """A trial's schedule for another length or batch size; None if they are its own."""
    new = respaced(own, epochs=epochs, batch_size=batch_size)
    if new == own:
        return None
    return rescaled(study.space, own, trial.family, trial.params, new)


def chosen(study: Study, epochs: int | None = None) -> tuple[Record, Verdict | None]:
    """The recommended trial, and the verdict that chose it on fresh seeds, if there is one.

    Of a study that measures several lengths, the best of the length that is nearest to ``epochs``,
    or of the longest.

    Raises:
        StudyError: no trial is complete yet.
    """
    now = snapshot(study)
    if epochs is not None and now.horizon is not None and now.horizon.lengths:
        return now.horizon.nearest(epochs).trial, None
    if now.recommended is None:
        raise StudyError(f"{study.name} has no complete trial yet: {ends(now)} of {now.total}")
    return now.recommended, now.verdict


def list_studies(
    *, storage: Storage = None, on_unreadable: Callable[[str], None] = lambda why: None
) -> list[Snapshot]:
    """Every study in the database, oldest first; empty if there is no database yet.

    ``on_unreadable`` is called with a message for each study whose rows are damaged.
    """
    url = storage_url(storage)
    if not has_studies(url):
        return []
    with open_database(url) as database:
        found = []
        for name in Studies(database).searches():
            try:
                found.append(snapshot(Study.open(database, name)))
            except (StudyError, ScheduleError) as error:
                on_unreadable(str(error))
        return found


def status(
    name: str,
    *,
    storage: Storage = None,
    watch: bool = False,
    storage_patience: float = PATIENCE_SECONDS,
    on_change: Callable[[Status], None] = lambda status: None,
    on_wait: Callable[[str], None] = lambda cause: None,
) -> Status:
    """The status of a study: its slots, active workers, throughput, and causes of failures.

    With ``watch`` it returns once every slot has ended, or the time granted is over and all workers
    have left, and calls ``on_change`` every two seconds until then. It waits out database outages
    of up to ``storage_patience`` seconds, calling ``on_wait`` with the cause of each.

    Raises:
        StudyError: there is no such study.
    """
    patience = Patience(
        storage_patience if watch else 0.0, on_wait=lambda error: on_wait(cause(error))
    )
    with open_database(storage_url(storage), patience=patience) as database:
        study = patience(lambda: Study.open(database, name))
        while True:
            now = patience(lambda: read_status(study))
            on_change(now)
            if not watch or now.ended:
                return now
            time.sleep(WATCH_SECONDS)


def show(
    name: str,
    trial: int | None = None,
    *,
    storage: Storage = None,
    task_dir: Path | None = None,
) -> Shown:
    """A study with all its trials, or one trial in detail; see :func:`best` for ``task_dir``.

    Raises:
        StudyError: unknown study or trial.
        TaskError: the rate function does not load.
    """
    with open_database(storage_url(storage)) as database:
        study = Study.open(database, name)
        if trial is None:
            return Shown(snapshot=snapshot(study), plan=study.plan, trial=None, rates=())
        record = study.trial(trial)
        bind_rate(study, record.family, task_dir)
        played = study.trace(record.family, record.params)
        rates = played.before(study.ends(record.params)).rates[0]
        return Shown(
            snapshot=snapshot(study), plan=study.plan, trial=record, rates=tuple(rates.tolist())
        )


def picture(
    name: str,
    what: Picture,
    *,
    storage: Storage = None,
    task_dir: Path | None = None,
) -> Figure:
    """A figure of a study; see :func:`best` for ``task_dir``.

    Raises:
        StudyError: there is no such study, or it has no data for this figure.
        TaskError: the rate function does not load.
    """
    with open_database(storage_url(storage)) as database:
        study = Study.open(database, name)
        return _DRAW[what](study, task_dir)


def _schedule(study: Study, task_dir: Path | None) -> Figure:
    trial, _ = chosen(study)
    bind_rate(study, trial.family, task_dir)
    return plots.picture_of_schedules(study, [trial])


def _scores(study: Study, _: Path | None) -> Figure:
    verdict = _confirmed(study).verdict
    if verdict is None:
        raise StudyError(f"{study.name}: no seed has been run with all finalists yet")
    return plots.picture_of_scores(study, verdict)


def _curves(study: Study, task_dir: Path | None) -> Figure:
    runs = _confirmed(study).runs
    for family in {run.family for run in runs}:
        bind_rate(study, family, task_dir)
    return plots.picture_of_curves(study, runs)


def _confirmed(study: Study) -> Confirmed:
    found = snapshot(study).confirmed
    if found is None:
        confirm = proposals.command("confirm", study.name)
        raise StudyError(f"{study.name} has no confirmation yet: {confirm} starts one")
    return found


def _range_test(study: Study, _: Path | None) -> Figure:
    if study.range_test is None:
        test = proposals.command("range-test", study.name)
        raise StudyError(f"{study.name} has no range test: {test} runs one")
    return plots.picture_of_range_test(study.range_test)


def _horizon(study: Study, _: Path | None) -> Figure:
    found = snapshot(study).horizon
    if found is None or not found.lengths:
        why = "is a search" if found is None else "has no result yet"
        raise StudyError(f"{study.name} {why}: clrsearch horizon measures several lengths")
    return plots.picture_of_horizon(found)


_DRAW: Mapping[Picture, Callable[[Study, Path | None], Figure]] = {
    "schedule": _schedule,
    "scores": _scores,
    "curves": _curves,
    "trials": lambda study, _: plots.picture_of_search(snapshot(study)),
    "progress": lambda study, _: plots.picture_of_progress(snapshot(study), by="trials"),
    "time": lambda study, _: plots.picture_of_progress(snapshot(study), by="time"),
    "range-test": _range_test,
    "horizon": _horizon,
}


def replay(
    name: str,
    trial: int,
    *,
    storage: Storage = None,
    device: str | None = None,
    task_dir: Path | None = None,
    data_dir: Path | None = None,
) -> Replayed:
    """Run a trial again up to the epoch it reached, without storing anything.

    Raises:
        StudyError: unknown study or trial, or the trial is still running or has failed.
    """
    chosen = training.find_device(device)
    with ExitStack() as stack:
        study = Study.open(stack.enter_context(open_database(storage_url(storage))), name)
        deterministic = study.plan.deterministic
        stack.enter_context(training.computing(chosen, deterministic=deterministic))
        record = study.trial(trial)
        if record.state == "running":
            raise StudyError(f"trial {trial} of {name} is still running")
        if record.state == "failed":
            raise StudyError(
                f"trial {trial} of {name} failed, so there is no result to compare with; "
                f"{proposals.command('show', name, trial)} shows why"
            )
        loaded = load_same(study, task_dir, data_dir, allow_drift=False)
        again = training.run_maker(
            loaded.task, study.facts, chosen, study.plan.precision, seed=study.plan.seed
        )(
            study.trace(record.family, record.params),
            seed=study.plan.seed,
            seed_index=record.seed_index,
        )
        values: dict[int, float] = {}

        def note(epoch: training.Epoch) -> bool:
            values[epoch.number] = epoch.metrics[study.facts.metric]
            return record.diverged or epoch.number < record.epoch

        with suppress(training.Diverged):
            again.train(note)
        return Replayed(
            trial=record, values=values, device=str(chosen), progress=study.facts.progress
        )
