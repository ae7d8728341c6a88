"""What clrsearch can do, as functions: the Python API, and all that the command line calls.

What trains is imported where it is called, so that listing studies does not cost torch.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clrsearch.errors import PlanError, PlanMismatch, StudyError
from clrsearch.launch import Command, LocalLauncher
from clrsearch.reports import Snapshot, ends, schedule_values, snapshot, source_code
from clrsearch.schedules import Schedule, Value
from clrsearch.search import Record, Study, StudyPlan, build_space, differences, exists, studies
from clrsearch.storage import (
    SlotState,
    StorageUrl,
    open_database,
    quiet_optuna,
    require_place,
)
from clrsearch.tasks import LoadedTask, TaskFacts, load_task
from clrsearch.worker import supervise

STORAGE_VARIABLE = "CLRSEARCH_STORAGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What :func:`run` leaves: the study as it now is, and whether it was interrupted."""

    snapshot: Snapshot
    storage: StorageUrl
    interrupted: bool
    began_finished: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The leader of a study: its trial, its schedule, and the schedule as a file of source code."""

    trial: Record
    schedule: Schedule
    values: Mapping[str, Value]
    code: str
    facts: TaskFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A trial that was run again: the metric at each epoch, as stored and as it came out now."""

    trial: Record
    values: Mapping[int, float]
    device: str

    @property
    def matches(self) -> bool:
        """Whether every epoch came out the same to the last bit."""
        return dict(self.trial.values) == dict(self.values)

    @property
    def largest_difference(self) -> float:
        """Between the stored and the repeated metric, over the epochs that both have."""
        both = self.trial.values.keys() & self.values.keys()
        return max((abs(self.trial.values[e] - self.values[e]) for e in both), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A study, and of one trial the record and the rates at the ends of its epochs."""

    snapshot: Snapshot
    trial: Record | None
    rates: tuple[float, ...]


def run(
    plan: StudyPlan,
    *,
    name: str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    task_dir: Path | None = None,
    on_change: Callable[[Snapshot], None] = lambda snapshot: None,
) -> Result:
    """Begin a study, or go on with the one of this name, and work until its slots are used up.

    ``storage`` is a database URL (default: one SQLite file in the user's data folder); ``workers``
    defaults to one per GPU, or per core without one. ``on_change`` is called about twice a second.

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
    with open_database(url, create=True) as database:
        if facts is not None:
            if exists(database, name):
                Study(database, name).delete()  # nothing but failures of an earlier source
            study = Study.create(database, name, plan, facts, versions(folder))
        else:
            study = Study(database, name)
        _join(study, plan, loaded)
        finished = study.slots.counts()[SlotState.OPEN] == 0 and study.slots.live() == 0
        interrupted = False
        if not finished:
            study.stop(None)
            names = [f"local-{os.getpid()}-{index}" for index in range(len(devices))]
            commands = {
                worker: worker_command(name, url, device, folder, worker)
                for worker, device in zip(names, devices[: study.slots.unfinished()], strict=False)
            }
            interrupted = supervise(
                study, LocalLauncher(), commands, lambda: on_change(snapshot(study))
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
    storage: str | None = None,
    device: str | None = None,
    task_dir: Path | None = None,
    worker: str | None = None,
    on_end: Callable[[Record, Study], None] = lambda record, study: None,
) -> None:
    """Work on a study in this process until no slot is left.

    Raises:
        StudyError: there is no such study, or the task's source is not the one it was made with.
        StudyStopped: the task's code failed again and again.
    """
    from clrsearch.training.device import find_device, one_thread
    from clrsearch.worker.loop import Worker, worker_name

    quiet_optuna()
    chosen = find_device(device)
    with open_database(storage_url(storage)) as database, one_thread(chosen):
        study = Study(database, name)
        loaded = _load_same(study, task_dir)
        Worker(
            study,
            loaded.task,
            chosen,
            name=worker or worker_name(),
            on_end=lambda record: on_end(record, study),
        ).work()


def best(name: str, *, storage: str | None = None) -> Best:
    """The leader of a study, with its code; the code has been executed and compared with the trial.

    Raises:
        StudyError: no trial is complete yet.
    """
    with open_database(storage_url(storage)) as database:
        study = Study(database, name)
        now = snapshot(study)
        if now.leader is None:
            raise StudyError(f"{name} has no complete trial yet: {ends(now)} of {now.total}")
        schedule = now.schedules[now.leader.number]
        return Best(
            trial=now.leader,
            schedule=schedule,
            values=schedule_values(schedule),
            code=source_code(study, now.leader),
            facts=study.facts,
        )


def list_studies(*, storage: str | None = None) -> list[Snapshot]:
    """Every study in the database, oldest first; none where there is no database yet."""
    if not storage_url(storage).file.exists():
        return []
    with open_database(storage_url(storage)) as database:
        return [snapshot(Study(database, each.name)) for each in studies(database)]


def show(name: str, trial: int | None = None, *, storage: str | None = None) -> Shown:
    """A study with all of its trials, or one of them in detail.

    Raises:
        StudyError: an unknown study or trial.
    """
    with open_database(storage_url(storage)) as database:
        study = Study(database, name)
        if trial is None:
            return Shown(snapshot=snapshot(study), trial=None, rates=())
        record = study.trial(trial)
        played = study.trace(record.family, record.params)
        rates = played.at_epoch_ends(study.facts.steps_per_epoch).rates[0]
        return Shown(snapshot=snapshot(study), trial=record, rates=tuple(rates.tolist()))


def replay(
    name: str,
    trial: int,
    *,
    storage: str | None = None,
    device: str | None = None,
    task_dir: Path | None = None,
) -> Replayed:
    """Run a trial again, as far as it came, without storing anything.

    Raises:
        StudyError: an unknown study or trial, or one that is still running or has failed.
    """
    from clrsearch.training import Diverged, SequentialRun, TaskData
    from clrsearch.training.device import find_device, one_thread

    chosen = find_device(device)
    with open_database(storage_url(storage)) as database, one_thread(chosen):
        study = Study(database, name)
        record = study.trial(trial)
        if record.state == "running":
            raise StudyError(f"trial {trial} of {name} is still running")
        if record.state == "failed":
            raise StudyError(
                f"trial {trial} of {name} failed, so there is no result to compare with; "
                f"clrsearch show {name} {trial} shows why"
            )
        loaded = _load_same(study, task_dir)
        again = SequentialRun(
            loaded.task,
            study.facts,
            TaskData(loaded.task, study.facts.batch_size, chosen),
            study.trace(record.family, record.params),
            seed=study.plan.seed,
            device=chosen,
        )
        values: dict[int, float] = {}
        try:
            for _ in range(record.epoch + record.diverged):
                epoch = again.next_epoch()
                values[epoch.number] = epoch.metrics[study.facts.metric]
        except Diverged:
            pass
        return Replayed(trial=record, values=values, device=str(chosen))


def delete(name: str, *, storage: str | None = None) -> None:
    """Remove a study with all of its trials.

    Raises:
        StudyError: there is no such study, or workers are busy with it.
    """
    with open_database(storage_url(storage)) as database:
        study = Study(database, name)
        live = study.slots.live()
        if live:
            raise StudyError(f"workers are busy with {live} of {name}'s trials: stop them first")
        study.delete()


def storage_url(text: str | None) -> StorageUrl:
    """The database given, else that of ``CLRSEARCH_STORAGE``, else a file in the user's folder."""
    text = text or os.environ.get(STORAGE_VARIABLE)
    return StorageUrl(text).absolute() if text else StorageUrl.default()


def default_name(plan: StudyPlan) -> str:
    """What a study is called that was given no name: as its task's module or file."""
    place = plan.task.partition(":")[0]
    return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


def worker_command(name: str, url: StorageUrl, device: str, folder: Path, worker: str) -> Command:
    """The command line of a local worker; the database is passed by its variable alone."""
    return Command(
        arguments=(
            *(sys.executable, "-m", "clrsearch", "worker", name),
            *("--device", device, "--task-dir", str(folder), "--worker-name", worker),
        ),
        environment={STORAGE_VARIABLE: url.reveal()},
    )


def versions(folder: Path) -> dict[str, str]:
    """What a study is made with: packages, Python, and the git commit of ``folder`` if any."""
    packages = ("clrsearch", "torch", "optuna", "numpy")
    found = {package: importlib.metadata.version(package) for package in packages}
    found["python"] = platform.python_version()
    git = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        found["commit"] = git.stdout.strip()
    return found


def _goes_on(url: StorageUrl, name: str, loaded: LoadedTask) -> bool:
    """Whether there is a study to go on with: not if it only failed and its task has changed."""
    if not url.file.exists():
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


def _join(study: Study, plan: StudyPlan, loaded: LoadedTask) -> None:
    """Add slots where more are asked for; refuse a plan that asks for another study."""
    build_space(plan, study.facts)  # a wrong bound is told as such, not as another plan
    different = differences(study.plan, plan)
    if loaded.source != study.facts.source:
        different.append(f"the source of {plan.task} has changed")
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
    study.grow(plan.trials if "trials" in plan.model_fields_set else study.plan.trials)


def _load_same(study: Study, task_dir: Path | None) -> LoadedTask:
    """The study's task.

    Raises:
        StudyError: its source is not the one that the study was made with.
    """
    plan = study.plan
    folder = (task_dir or Path.cwd()).absolute()
    loaded = load_task(plan.task, options=plan.options, folder=folder)
    if loaded.source != study.facts.source:
        raise StudyError(
            f"the source of {plan.task} has changed since {study.name} was made: "
            "its trials cannot be compared with new ones"
        )
    return loaded
