"""Confirmations of a recommended schedule under changed conditions: does the answer hold?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clrsearch import proposals
from clrsearch.errors import PlanError, StudyError
from clrsearch.results import Snapshot, Variation, snapshot, variation
from clrsearch.search import (
    Condition,
    Finalist,
    Record,
    Run,
    Study,
    StudyPlan,
    every_run,
    load_plan,
    read_conditions,
)
from clrsearch.service.equipment import (
    DEFAULTS,
    require_gpus,
    require_room,
    resolved,
    wanted_device,
)
from clrsearch.service.paths import Storage, checkpoint_root, storage_url
from clrsearch.service.provenance import refuse_drift, sources_of
from clrsearch.service.running import require_arguments
from clrsearch.service.transferring import require_search
from clrsearch.service.tryout import Tryout
from clrsearch.service.working import watch_workers, work_here
from clrsearch.storage import (
    UNFINISHED,
    SlotState,
    StorageUrl,
    make_folder,
    open_database,
    quiet_optuna,
)
from clrsearch.tasks import TaskFacts, is_kept_here
from clrsearch.worker import WorkerSettings

SEEDS = 3
ENDED = set(SlotState) - {*UNFINISHED, SlotState.CANCELLED}
TOP = 2  # the recommended schedule and its runner-up


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A changed condition with runs to do, after the task has been tried out under it."""

    label: str
    plan: StudyPlan
    facts: TaskFacts
    finalists: Mapping[int, Finalist]
    devices: Sequence[str]


def vary(
    name: str,
    changes: Mapping[str, Sequence[Any]],
    *,
    seeds: int | None = None,
    top: int | None = None,
    storage: Storage = None,
    workers: int | None = None,
    settings: WorkerSettings = DEFAULTS,
    on_change: Callable[[Snapshot], None] = lambda snapshot: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Variation:
    """Run the recommended schedule and its rivals under changed conditions, one at a time.

    They keep their rates and their shares of the run, and run with the same fresh seeds as in the
    study's own confirmation. Each condition is a study of its own, whose runs any worker can take
    up; what has been run already is not repeated.

    Args:
        name: the study.
        changes: values by key: ``weight_decay`` (a number, or a factor such as ``"3x"``),
            ``batch_size``, ``epochs``, ``seed``, or an option of the task, ``options.NAME``.
        seeds: number of fresh seeds, 3 by default.
        top: number of finalists besides the baseline's, the recommended one included; 2 by default.
        storage: the database.
        workers: number of worker processes, as for :func:`clrsearch.service.run`.
        settings: how the workers work.
        on_change: called with the study of the present condition about twice a second.
        on_note: called with other messages.

    Raises:
        PlanError: nothing is changed, a key cannot be, or a value is invalid or the study's own.
        TaskError: the task does not take a value, for example of an option.
        StudyError: there is no such study, it is no search, or it has no recommendation on fresh
            seeds yet.
        StudyStopped: the task's code failed repeatedly.
    """
    if not changes:
        raise PlanError("vary: no change given, such as weight_decay=3x")
    seeds, top = SEEDS if seeds is None else seeds, TOP if top is None else top
    load_plan(None, {"confirm.seeds": seeds, "confirm.top": top})  # their ranges
    quiet_optuna()
    require_gpus(settings)
    url = storage_url(storage)
    settings = resolved(settings, url)
    with open_database(url) as database:
        study = Study.open(database, name)
        require_search(study)
        require_arguments(study.plan, workers, settings)
        conditions = read_conditions(changes, study.plan, study.facts)
        schedules = _compared(study, top)
        if not settings.allow_drift:
            refuse_drift(study, sources_of(study.plan, settings.task_dir))
        settings = replace(settings, device=wanted_device(study, settings))
        here = workers == 0 or is_kept_here(study.plan.task)
        asked = every_run(schedules, seeds)
        tried = [
            _tried(study, each, schedules, settings, 0 if here else workers, runs=len(asked))
            for each in conditions
            if not _has_run(study, each, asked)
        ]
        interrupted = False
        for each in tried:
            runs = study.vary(each.label, each.plan, each.facts)
            runs.add_runs(each.finalists, asked)
            if not interrupted:
                on_note(f"{each.label}: {runs.slots.unfinished()} runs to do")
                interrupted = _work(runs, url, settings, each.devices, here, on_change, on_note)
        told = [(each.label, study.under(each.label)) for each in conditions]
        there = [(label, runs) for label, runs in told if runs is not None]
        return variation(study, schedules, there, interrupted=interrupted)


def _compared(study: Study, top: int) -> list[Record]:
    """The recommended trial, the best other finalists, and the baseline's."""
    verdict = snapshot(study).verdict
    if verdict is None:
        raise StudyError(
            f"{study.name} has no recommendation on fresh seeds yet: "
            f"{proposals.command('confirm', study.name)} runs them"
        )
    use = verdict.standing(verdict.chosen)
    others = [each for each in verdict.standings if each != use]
    baselines = [each for each in others if each.family == study.plan.baseline]
    kept = dict.fromkeys(each.trial for each in (use, *others[: top - 1], *baselines[:1]))
    return [study.trial(number) for number in kept]


def _has_run(study: Study, condition: Condition, asked: Sequence[Run]) -> bool:
    """Whether all the runs that are asked for have ended under a condition."""
    runs = study.under(condition.label)
    states = {} if runs is None else runs.slots.runs()
    return all(states.get(each, SlotState.OPEN) in ENDED for each in asked)


def _tried(
    study: Study,
    condition: Condition,
    schedules: Sequence[Record],
    settings: WorkerSettings,
    workers: int | None,
    *,
    runs: int,
) -> _Tried:
    """Try the task out under a condition, in this process without ``workers``; stores nothing.

    Raises:
        PlanError: the value is the task's own, or a schedule is impossible under the condition.
        TaskError: the task does not take the value.
    """
    plan, label = condition.plan(study.plan, study.facts, schedules), condition.label
    with Tryout(
        plan,
        device=settings.device,
        task_dir=settings.task_dir,
        data_dir=settings.data_dir,
        here=workers == 0,
    ) as tryout:
        tryout.require_space(plan, tryout.facts)
        if condition.is_own(study.plan, tryout.defaults) or _decays_alike(study.plan, plan, tryout):
            raise PlanError(f"vary {label}: that is how the study was searched")
        return _Tried(
            label=label,
            plan=plan,
            facts=tryout.facts,
            finalists=condition.finalists(schedules, study.facts, tryout.facts),
            devices=tryout.devices(
                1 if workers == 0 else workers,
                slots=runs,
                gpus_per_trial=settings.gpus_per_trial,
            ),
        )


def _decays_alike(own: StudyPlan, plan: StudyPlan, tryout: Tryout) -> bool:
    """Whether a plan asks for a weight decay that the optimizer's groups have anyway."""
    if plan.weight_decay == own.weight_decay:
        return False
    before, after = tryout.weight_decays(own.weight_decay, plan.weight_decay)
    return before == after


def _work(
    runs: Study,
    url: StorageUrl,
    settings: WorkerSettings,
    devices: Sequence[str],
    here: bool,
    on_change: Callable[[Snapshot], None],
    on_note: Callable[[str], None],
) -> bool:
    """Do the runs of a condition that are left; returns whether that was interrupted."""
    require_room(url, len(devices))
    make_folder(checkpoint_root(url, settings.checkpoint_dir))
    devices = devices[: runs.slots.unfinished()]
    if not here:
        return watch_workers(runs, url, settings, devices, on_change=on_change, on_note=on_note)
    in_process = replace(settings, device=devices[0])
    work_here(runs, url, in_process, on_change=on_change, on_note=on_note)
    return runs.slots.unfinished() > 0
