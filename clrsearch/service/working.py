"""Running studies, and working on them.

What trains is imported where it is called, so that listing studies does not cost torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clrsearch.errors import PlanError, PlanMismatch, StorageError
from clrsearch.launch import Command, LocalLauncher
from clrsearch.reports import (
    Snapshot,
    snapshot,
)
from clrsearch.search import (
    Record,
    Study,
    StudyPlan,
    build_space,
    differences,
    exists,
    finalists,
)
from clrsearch.service.drift import drift_of, load_same, refuse_drift, versions
from clrsearch.service.place import Storage, checkpoint_folder, default_name, storage_url
from clrsearch.storage import (
    PATIENCE_SECONDS,
    Patience,
    StorageUrl,
    cause,
    has_studies,
    open_database,
    quiet_optuna,
    require_place,
)
from clrsearch.tasks import LoadedTask, TaskFacts, load_task
from clrsearch.worker import Supervisor

CHECKPOINT_SECONDS = 10.0
SQLITE_WORKERS = 32
"""More processes than that wait for the lock of one file in vain: some of 64, none of 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What :func:`run` leaves: the study as it now is, and whether it was interrupted."""

    snapshot: Snapshot
    storage: StorageUrl
    interrupted: bool
    began_finished: bool
    seconds: float


def run(
    plan: StudyPlan,
    *,
    name: str | None = None,
    storage: Storage = None,
    workers: int | None = None,
    device: str | None = None,
    task_dir: Path | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    storage_patience: float = PATIENCE_SECONDS,
    allow_drift: bool = False,
    on_change: Callable[[Snapshot], None] = lambda snapshot: None,
) -> Result:
    """Begin a study, or go on with the one of this name, and work until its slots are used up.

    ``workers`` defaults to one per GPU, or per core without one. Checkpoints are written at least
    ``checkpoint_seconds`` apart; outages of the database are waited out for ``storage_patience``
    seconds. ``allow_drift`` goes on with a study that was made with another source of the task or
    another version of clrsearch or torch. ``on_change`` is called about twice a second.

    Raises:
        ClrsearchError: the plan, the task or the storage is not as it must be; nothing is written.
        StudyStopped: the task's code failed again and again.
    """
    from clrsearch.training.device import worker_devices

    began = time.monotonic()
    quiet_optuna()
    if workers is not None and workers < 1:
        raise PlanError(f"workers must be at least 1, not {workers}")
    name = name or default_name(plan)
    url = storage_url(storage)
    folder = (task_dir or Path.cwd()).absolute()
    require_place(url, create=True)
    loaded = load_task(plan.task, options=plan.options, folder=folder)
    facts = None if _goes_on(url, name, loaded) else _probe(loaded, plan, device)
    devices = worker_devices(device, workers, slots=plan.trials)
    _require_room(url, len(devices))
    with open_database(url, create=True) as database:
        if facts is not None:
            if exists(database, name):
                Study(database, name).delete()  # nothing but failures of an earlier source
            study = Study.create(database, name, plan, facts, versions(folder))
        else:
            study = Study(database, name)
        _join(study, plan, loaded, allow_drift=allow_drift)
        finished = _left(study) == 0
        checkpoints = checkpoint_folder(url, study, checkpoint_dir)
        options = (
            *("--task-dir", str(folder), "--checkpoint-dir", str(checkpoints.parent)),
            *("--checkpoint-seconds", str(checkpoint_seconds)),
            *("--storage-patience", str(storage_patience)),
            *(["--allow-drift"] if allow_drift else []),
        )
        commands = [partial(worker_command, name, url, device, options) for device in devices]
        interrupted = not finished and _watch_workers(
            study, commands, checkpoints, patience=storage_patience, on_change=on_change
        )
        return Result(
            snapshot=snapshot(study),
            storage=url,
            interrupted=interrupted,
            began_finished=finished,
            seconds=time.monotonic() - began,
        )


def work(
    name: str,
    *,
    storage: Storage = None,
    device: str | None = None,
    task_dir: Path | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    storage_patience: float = PATIENCE_SECONDS,
    allow_drift: bool = False,
    worker: str | None = None,
    on_end: Callable[[Record, Study], None] = lambda record, study: None,
    on_wait: Callable[[str], None] = lambda cause: None,
) -> None:
    """Work on a study in this process until no slot is left; see :func:`run` for the options.

    ``on_wait`` is called with the cause of each outage of the database that it waits out.

    Raises:
        StudyError: there is no such study, or the task's source or a package is not the one that it
            was made with.
        StudyStopped: the task's code failed again and again.
    """
    from clrsearch.training import Checkpoints, TaskData, warm_up
    from clrsearch.training.device import find_device, one_thread
    from clrsearch.worker.loop import Worker, worker_name

    quiet_optuna()
    chosen = find_device(device)
    url = storage_url(storage)

    def waits(error: BaseException) -> None:
        on_wait(cause(error))

    patience = Patience(storage_patience, on_wait=waits)
    with open_database(url, patience=patience) as database, one_thread(chosen):
        study = patience(lambda: Study(database, name))
        _require_room(url, patience(study.slots.live) + 1)
        task = load_same(study, task_dir, allow_drift=allow_drift).task
        data = TaskData(task, study.facts.batch_size, chosen)
        warm_up(task)

        def work_on(each: Study) -> bool:
            return Worker(
                each,
                task,
                data,
                chosen,
                Checkpoints(checkpoint_folder(url, each, checkpoint_dir)),
                name=worker or worker_name(),
                checkpoint_seconds=checkpoint_seconds,
                patience=storage_patience,
                on_end=lambda record: on_end(record, each),
                on_wait=waits,
            ).work()

        if work_on(study) and study.plan.confirm.enabled:
            sibling = patience(lambda: begin_confirmation(study))
            if sibling is not None:
                work_on(sibling)


def _watch_workers(
    study: Study,
    commands: Sequence[Callable[[str], Command]],
    checkpoints: Path,
    *,
    patience: float,
    on_change: Callable[[Snapshot], None],
) -> bool:
    """Let local workers work until no slot is left; whether they were interrupted."""
    from clrsearch.training import Checkpoints

    for each in study.stages():
        each.stop(None)
    Checkpoints(checkpoints)  # a folder that cannot be written to is told before they start
    interrupted = Supervisor(
        study,
        LocalLauncher(),
        commands if study.plan.confirm.enabled else commands[: study.slots.unfinished()],
        patience=patience,
        on_change=lambda: on_change(snapshot(study)),
    ).watch()
    with suppress(OSError):  # not empty: trials are left that resume from them
        checkpoints.rmdir()
        checkpoints.parent.rmdir()
    return interrupted


def begin_confirmation(study: Study) -> Study | None:
    """The study in which the best are run again, with all runs that the plan asks for.

    None where the search has not ended, or has no complete trial.
    """
    if study.stopped is not None or study.slots.unfinished():
        return None
    plan, records = study.plan, study.history.records()
    if all(record.state != "complete" for record in records):
        return None
    best = finalists(
        records, top=plan.confirm.top, baseline=plan.baseline, direction=study.facts.direction
    )
    return study.confirm(best, plan.confirm.seeds)


def _left(study: Study) -> int:
    """How many slots are open or claimed, those of a confirmation that is asked for included."""
    if study.plan.confirm.enabled:
        begin_confirmation(study)
    return sum(each.slots.unfinished() for each in study.stages())


def worker_command(
    name: str, url: StorageUrl, device: str, options: Sequence[str], worker: str
) -> Command:
    """The command line of a local worker; the database is passed by its variable alone."""
    return Command(
        arguments=(
            *(sys.executable, "-m", "clrsearch", "worker", name, "--device", device),
            *("--worker-name", worker, *options),
        ),
        environment=url.environment(),
    )


def _goes_on(url: StorageUrl, name: str, loaded: LoadedTask) -> bool:
    """Whether there is a study to go on with: not if it only failed and its task has changed."""
    if not has_studies(url):
        return False
    with open_database(url) as database:
        if not exists(database, name):
            return False
        study = Study(database, name)
        only_failed = all(record.state == "failed" for record in study.history.records())
        return loaded.source == study.facts.source or not only_failed or study.slots.live() > 0


def _probe(loaded: LoadedTask, plan: StudyPlan, device: str | None) -> TaskFacts:
    from clrsearch.training import probe
    from clrsearch.training.device import find_device, one_thread

    chosen = find_device(device)
    with one_thread(chosen):
        facts = probe(
            loaded,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            metric=plan.metric,
            direction=plan.direction,
            device=chosen,
        )
    build_space(plan, facts)
    return facts


def _join(study: Study, plan: StudyPlan, loaded: LoadedTask, *, allow_drift: bool) -> None:
    """Add slots where more are asked for; refuse a plan that asks for another study."""
    build_space(plan, study.facts)  # a wrong bound is told as such, not as another plan
    different = differences(study.plan, plan)
    drift = [] if allow_drift else drift_of(study, loaded)
    fewer = "trials" in plan.model_fields_set and plan.trials < study.plan.trials
    if fewer:
        different.append(
            f"trials is {study.plan.trials} there and {plan.trials} here, and may only grow"
        )
    if different:
        raise PlanMismatch(
            f"the study {study.name} exists with another plan: {'; '.join(different)}. "
            "Begin another with --name, or remove it with clrsearch delete"
        )
    refuse_drift(study, drift)
    study.grow(plan.trials if "trials" in plan.model_fields_set else study.plan.trials)
    if plan.confirm != study.plan.confirm and "confirm" in plan.model_fields_set:
        study.plan_confirmation(plan.confirm)


def _require_room(url: StorageUrl, workers: int) -> None:
    """Refuse more workers than SQLite serves."""
    if url.file is not None and workers > SQLITE_WORKERS:
        raise StorageError(
            f"SQLite serves up to {SQLITE_WORKERS} workers, not {workers}: for more of them keep "
            "the study in PostgreSQL (--storage postgresql://USER@HOST/DATABASE)"
        )
