"""Start or resume studies, with workers on this machine.

Training code is imported lazily, so that commands that only list studies need not import torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from clrsearch import proposals
from clrsearch.errors import PlanError, PlanMismatch
from clrsearch.results import Snapshot, shortfall, snapshot
from clrsearch.search import (
    EarlierStudy,
    RangeTest,
    Studies,
    Study,
    StudyPlan,
    differences,
    fitting,
    is_over,
    require_name,
    require_plan,
)
from clrsearch.service.confirming import left
from clrsearch.service.earlier_studies import started_like
from clrsearch.service.equipment import (
    DEFAULTS,
    crowding,
    require_gpus,
    require_room,
    require_shares,
    resolved,
    wanted_device,
)
from clrsearch.service.granting import Grant, search_further, settle_up
from clrsearch.service.paths import (
    Storage,
    checkpoint_root,
    default_name,
    storage_url,
    task_folder,
)
from clrsearch.service.provenance import refuse_drift, sources_of, versions
from clrsearch.service.testing import show_range_test
from clrsearch.service.tryout import Tryout
from clrsearch.service.working import watch_workers, work_here
from clrsearch.storage import (
    Database,
    Patience,
    StorageUrl,
    has_studies,
    make_folder,
    open_database,
    quiet_optuna,
    require_place,
)
from clrsearch.tasks import TaskFacts, describe, is_kept_here
from clrsearch.worker import WorkerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of :func:`run`.

    Attributes:
        snapshot: the study after the run.
        shortfall: one line on what an ended study lacks, such as failed trials; None if nothing.
        storage: the database.
        task_dir: folder of the task's files.
        interrupted: whether the run was interrupted.
        began_finished: whether the study had already finished before the run.
        seconds: duration of the run.
        ran_out: which limit was reached before the verdict was settled; None if it was settled.
        further: the command that searches further, if this one can be repeated.
    """

    snapshot: Snapshot
    shortfall: str | None
    storage: StorageUrl
    task_dir: Path
    interrupted: bool
    began_finished: bool
    seconds: float
    ran_out: str | None = None
    further: str | None = None


def run(
    plan: StudyPlan,
    *,
    name: str | None = None,
    storage: Storage = None,
    workers: int | None = None,
    download: bool = False,
    settings: WorkerSettings = DEFAULTS,
    on_change: Callable[[Snapshot], None] = lambda snapshot: None,
    on_note: Callable[[str], None] = lambda text: None,
    on_loss: Callable[[str], None] = lambda text: None,
    on_range_test: Callable[[RangeTest | None], None] = lambda tested: None,
    began: float | None = None,
) -> Result:
    """Start a study, or resume the one of this name, and run workers until no slot is left.

    Args:
        plan: the study's plan.
        name: the study; by default named after the task's module or file.
        storage: the database.
        workers: number of worker processes; by default one per GPU, or one per core without a GPU.
            With 0, one worker trains in this process, where a debugger can stop it.
        download: fetch missing data before the workers start; workers never do.
        settings: how the workers work, within the limits of a run: until no slot is left.
        on_change: called with the study about twice a second.
        on_note: called with other messages, such as how a worker was lost.
        on_loss: called too with those that say how a worker was lost.
        on_range_test: called with None when the range test of a new study starts, if its plan
            requests one, and then with the result.
        began: when the command began, by the monotonic clock, for its minutes; by default now.

    Raises:
        ClrsearchError: the plan, task or storage is not valid; nothing is written.
        StudyStopped: the task's code failed repeatedly.
    """
    began = time.monotonic() if began is None else began
    quiet_optuna()
    require_arguments(plan, workers, settings)
    here = workers == 0 or is_kept_here(plan.task)
    name = default_name(plan) if name is None else name
    require_gpus(settings)
    url = storage_url(storage)
    settings = resolved(settings, url)
    require_place(url, create=True)
    goes_on, device = _resumed(url, name, plan, settings)
    new, settings = not goes_on, replace(settings, device=device)
    earlier: tuple[EarlierStudy, ...] = ()
    if new:
        require_name(name)
        require_plan(plan)
        plan, earlier = started_like(url, name, plan)
        if here and workers is None:
            on_note(
                f"{plan.task.partition(':')[2]} exists only in this process, so one worker trains "
                "it here; move it to a file to use one worker per core"
            )
    with ExitStack() as opened:
        with Tryout(
            plan,
            device=settings.device,
            task_dir=settings.task_dir,
            data_dir=settings.data_dir,
            download=download,
            here=here,
        ) as tryout:
            if new:
                plan, notes = fitting(plan, tryout.facts)
                for note in notes:
                    on_note(note)
                _require_fit(plan, tryout, settings)
            devices = tryout.devices(
                1 if here else workers,
                slots=plan.trials,
                gpus_per_trial=settings.gpus_per_trial,
            )
            require_room(url, len(devices))
            grant = _grant(plan, tryout, devices, began=began, new=new)
            tested = None
            if new and plan.range_test:
                on_range_test(None)
                tested = tryout.range_test(tryout.facts)
                on_range_test(tested)
            make_folder(checkpoint_root(url, settings.checkpoint_dir))
            database = opened.enter_context(open_database(url, create=True))
            if new:
                _begin(database, name, plan, tryout, settings, tested, earlier, grant, on_note)
            study = Study.open(database, name)
            _join(study, plan, tryout, grant, on_note, allow_drift=settings.allow_drift)
        finished = left(study) == 0 or is_over(study)
        interrupted = False
        if here and not finished:
            in_process = replace(settings, device=devices[0])
            work_here(study, url, in_process, on_change=on_change, on_note=on_note)
            interrupted = left(study) > 0 and not is_over(study)
        elif not finished:
            if not (study.plan.confirm.enabled or study.record.plan.open_ended):
                devices = devices[: study.slots.unfinished()]
            interrupted = watch_workers(
                study,
                url,
                settings,
                devices,
                on_change=on_change,
                on_note=on_note,
                on_loss=on_loss,
            )
        return result_of(
            study,
            url,
            settings,
            interrupted=interrupted,
            began_finished=finished,
            began=began,
        )


def result_of(
    study: Study,
    url: StorageUrl,
    settings: WorkerSettings,
    *,
    interrupted: bool,
    began: float,
    began_finished: bool = False,
) -> Result:
    """The result of a run that has ``began`` at this time of the monotonic clock."""
    patience = Patience(settings.storage_patience)
    ran_out = patience(lambda: settle_up(study))
    now = patience(lambda: snapshot(study))
    return Result(
        snapshot=now,
        shortfall=shortfall(study, now),
        storage=url,
        task_dir=task_folder(settings.task_dir),
        interrupted=interrupted,
        began_finished=began_finished,
        seconds=time.monotonic() - began,
        ran_out=None if interrupted else ran_out,
        further=search_further(study, now.total),
    )


def require_arguments(plan: StudyPlan, workers: int | None, settings: WorkerSettings) -> None:
    """Validate the plan of a study that is to be run, with so many workers.

    Raises:
        PlanError: ``plan`` is not a StudyPlan, or its task cannot have that number of workers.
    """
    if not isinstance(plan, StudyPlan):
        raise PlanError(
            f"run() needs a StudyPlan, not {describe(plan)}: use StudyPlan(task=...), or "
            "load_plan(PATH) for a study file"
        )
    ranks = settings.gpus_per_trial
    if ranks > 1 and (workers == 0 or is_kept_here(plan.task)):
        raise PlanError(
            f"--gpus-per-trial {ranks} needs a process per GPU, but the task is trained in this "
            "one: move it to a file, and leave out --workers 0"
        )
    if workers is None:
        return
    if workers < 0:
        raise PlanError(f"workers must be at least 0, not {workers}")
    if workers > 1 and is_kept_here(plan.task):
        raise PlanError(
            f"workers: {plan.task.partition(':')[2]} exists only in this process, so only one "
            f"worker can train it, not {workers}: move it to a file, or pass workers=1"
        )


def _require_fit(plan: StudyPlan, tryout: Tryout, settings: WorkerSettings) -> None:
    """Refuse what the task cannot be searched or trained with.

    Raises:
        PlanError: naming it.
    """
    tryout.require_space(plan, tryout.facts)
    require_shares(tryout.facts.batch_size, settings)
    if isinstance(settings.lanes, int) and settings.lanes > 1:
        tryout.require_lanes(tryout.facts, settings.lanes)
    if plan.trunks is not None:
        _require_sharing(tryout.facts, settings)


def _require_sharing(facts: TaskFacts, settings: WorkerSettings) -> None:
    """Refuse few starts for trials that cannot share what they have in common.

    Raises:
        PlanError: saying why.
    """
    reasons = {
        "a loop of your own": facts.batch_size is None,
        "--lanes": settings.lanes not in (None, "off", 1),
        "--gpus-per-trial": settings.gpus_per_trial > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise PlanError(
                f"trunks: trials cannot share their beginnings with {reason}: leave one of them out"
            )


def _begin(
    database: Database,
    name: str,
    plan: StudyPlan,
    tryout: Tryout,
    settings: WorkerSettings,
    tested: RangeTest | None,
    earlier: Sequence[EarlierStudy],
    grant: Grant,
    on_note: Callable[[str], None],
) -> None:
    """Create the study, replacing an existing one whose trials all failed with older source."""
    if name in Studies(database).searches():
        Study.open(database, name).delete()
    made_with = versions(task_folder(settings.task_dir), tryout.sources.rate)
    study = Study.create(
        database,
        name,
        plan,
        tryout.facts,
        made_with,
        range_test=tested,
        earlier=earlier,
        granted=grant.granted(database) if plan.open_ended else None,
    )
    for note in () if study.warm_start is None else study.warm_start.left_out:
        on_note(note)
    if tested is not None and study.range_test is not None:
        show_range_test(study)


def _resumed(
    url: StorageUrl, name: str, plan: StudyPlan, settings: WorkerSettings
) -> tuple[bool, str | None]:
    """Whether to resume an existing study, and the device to train on, None for any.

    It is not resumed if all its trials failed and the task has changed.

    If the plan equals the study's, it may come from the database, so drift is checked before any of
    its code is loaded.
    """
    sources = sources_of(plan, settings.task_dir)
    if not has_studies(url):
        return False, settings.device
    with open_database(url) as database:
        if name not in Studies(database).searches():
            return False, settings.device
        study = Study.open(database, name)
        only_failed = all(record.state == "failed" for record in study.history.records())
        if sources.task != study.facts.source and only_failed and not study.slots.live():
            return False, settings.device
        if not settings.allow_drift and not differences(study.plan, plan):
            refuse_drift(study, sources)
        return True, wanted_device(study, settings)


def _grant(
    plan: StudyPlan, tryout: Tryout, devices: Sequence[str], *, began: float, new: bool
) -> Grant:
    """What the plan grants its study; for a new one, an interval is timed if that matters.

    Raises:
        PlanError: it is too little for a new study.
    """
    seconds = 0.0
    if new and (plan.minutes or plan.gpu_hours):
        seconds = tryout.interval_seconds(tryout.facts) * crowding(devices)
    grant = Grant(
        plan=plan,
        began=began,
        loading=tryout.loading,
        workers=len(devices),
        interval_seconds=seconds,
    )
    if new:
        grant.require_enough(tryout.facts)
    return grant


def _join(
    study: Study,
    plan: StudyPlan,
    tryout: Tryout,
    grant: Grant,
    on_note: Callable[[str], None],
    *,
    allow_drift: bool,
) -> None:
    """Apply the plan to an existing study: add slots if it requests more; refuse other changes."""
    # first, so that an invalid value is not reported as a different plan
    tryout.require_space(study.plan, study.facts, study.range_test)
    different = differences(study.plan, plan)
    counted = plan.horizon is None and "trials" in plan.model_fields_set
    fewer = counted and plan.trials < study.plan.trials
    deletes = f", {proposals.command('delete', study.name)} deletes this" if different else ""
    if fewer and not plan.until_settled:
        different.append(
            f"trials is {study.plan.trials} there and {plan.trials} here; it can only be increased"
        )
    if different:
        another = proposals.again(name=f"{study.name}-2")
        raise PlanMismatch(
            f"the study {study.name} exists with a different plan: {'; '.join(different)}. "
            f"{another} starts a new one{deletes}"
        )
    if not allow_drift:
        refuse_drift(study, tryout.sources)
    rate_function = tryout.rate_function(study.facts)
    if rate_function is not None:
        study.bind(rate_function)
    if plan.horizon is not None:
        study.more_seeds(plan.horizon.seeds)
    if (told := grant.give(study)) is not None:
        on_note(told)
    if "confirm" in plan.model_fields_set:
        if plan.confirm != study.plan.confirm:
            study.plan_confirmation(plan.confirm)
        if plan.confirm.enabled and "enabled" in plan.confirm.model_fields_set:
            study.allow_confirmation()
