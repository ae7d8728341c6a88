"""What clrsearch can do, as functions: the Python API, and all that the command line calls.

What trains is imported where it is called, so that listing studies does not cost torch.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs

from clrsearch.errors import PlanError, PlanMismatch, StorageError, StudyError
from clrsearch.launch import Command, LocalLauncher
from clrsearch.reports import (
    Snapshot,
    Status,
    ends,
    read_status,
    schedule_values,
    snapshot,
    source_code,
)
from clrsearch.schedules import Schedule, Value
from clrsearch.search import Record, Study, StudyPlan, build_space, differences, exists, studies
from clrsearch.storage import (
    FILE_VARIABLE,
    PATIENCE_SECONDS,
    STORAGE_VARIABLE,
    Patience,
    StorageUrl,
    Upgraded,
    cause,
    has_studies,
    open_database,
    quiet_optuna,
    require_place,
    upgrade,
)
from clrsearch.tasks import LoadedTask, TaskFacts, load_task
from clrsearch.worker import Supervisor

CHECKPOINT_VARIABLE = "CLRSEARCH_CHECKPOINT_DIR"
CHECKPOINT_SECONDS = 10.0
WATCH_SECONDS = 2.0
SQLITE_WORKERS = 32
"""More processes than that wait for the lock of one file in vain: some of 64, none of 32."""

Storage = str | StorageUrl | None
"""A database URL; None stands for that of the environment, or for a file in the user's folder."""


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
    from clrsearch.training import Checkpoints
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
        finished = study.slots.unfinished() == 0
        interrupted = False
        if not finished:
            study.stop(None)
            checkpoints = checkpoint_folder(url, study, checkpoint_dir)
            Checkpoints(checkpoints)  # a folder that cannot be written to is told before they start
            options = (
                *("--task-dir", str(folder), "--checkpoint-dir", str(checkpoints.parent)),
                *("--checkpoint-seconds", str(checkpoint_seconds)),
                *("--storage-patience", str(storage_patience)),
                *(["--allow-drift"] if allow_drift else []),
            )
            interrupted = Supervisor(
                study,
                LocalLauncher(),
                [
                    partial(worker_command, name, url, device, options)
                    for device in devices[: study.slots.unfinished()]
                ],
                patience=storage_patience,
                on_change=lambda: on_change(snapshot(study)),
            ).watch()
            with suppress(OSError):  # not empty: trials are left that resume from them
                checkpoints.rmdir()
                checkpoints.parent.rmdir()
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
    from clrsearch.training import Checkpoints
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
        Worker(
            study,
            _load_same(study, task_dir, allow_drift=allow_drift).task,
            chosen,
            Checkpoints(checkpoint_folder(url, study, checkpoint_dir)),
            name=worker or worker_name(),
            checkpoint_seconds=checkpoint_seconds,
            patience=storage_patience,
            on_end=lambda record: on_end(record, study),
            on_wait=waits,
        ).work()


def best(name: str, *, storage: Storage = None) -> Best:
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


def list_studies(*, storage: Storage = None) -> list[Snapshot]:
    """Every study in the database, oldest first; none where there is no database yet."""
    url = storage_url(storage)
    if not has_studies(url):
        return []
    with open_database(url) as database:
        return [snapshot(Study(database, each.name)) for each in studies(database)]


def status(
    name: str,
    *,
    storage: Storage = None,
    watch: bool = False,
    storage_patience: float = PATIENCE_SECONDS,
    on_change: Callable[[Status], None] = lambda status: None,
    on_wait: Callable[[str], None] = lambda cause: None,
) -> Status:
    """How a study stands: its slots, the workers that hold some, the pace, and what failed why.

    With ``watch`` it returns when every slot has ended. ``on_change`` is called every two seconds
    until then, and ``on_wait`` with the cause of each outage of the database that it waits out,
    for ``storage_patience`` seconds.

    Raises:
        StudyError: there is no such study.
    """
    patience = Patience(
        storage_patience if watch else 0.0, on_wait=lambda error: on_wait(cause(error))
    )
    with open_database(storage_url(storage), patience=patience) as database:
        study = patience(lambda: Study(database, name))
        while True:
            now = patience(lambda: read_status(study))
            on_change(now)
            if not watch or not now.left:
                return now
            time.sleep(WATCH_SECONDS)


def show(name: str, trial: int | None = None, *, storage: Storage = None) -> Shown:
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
    storage: Storage = None,
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
        loaded = _load_same(study, task_dir, allow_drift=False)
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


def delete(name: str, *, storage: Storage = None) -> None:
    """Remove a study with all of its trials.

    Raises:
        StudyError: there is no such study, or workers are busy with it.
    """
    url = storage_url(storage)
    with open_database(url) as database:
        study = Study(database, name)
        live = study.slots.live()
        if live:
            raise StudyError(f"workers are busy with {live} of {name}'s trials: stop them first")
        study.delete()
        shutil.rmtree(checkpoint_folder(url, study, None), ignore_errors=True)


def retry(name: str, *, storage: Storage = None) -> int:
    """Give each failed slot of a study another try with the same parameters; how many there were.

    Raises:
        StudyError: there is no such study.
    """
    with open_database(storage_url(storage)) as database:
        study = Study(database, name)
        study.stop(None)
        return study.slots.retry()


def cancel(name: str, *, storage: Storage = None) -> int:
    """Take the open slots of a study out of its budget; how many there were. Running trials go on.

    Raises:
        StudyError: there is no such study.
    """
    with open_database(storage_url(storage)) as database:
        return Study(database, name).slots.cancel()


def upgrade_database(*, storage: Storage = None) -> Upgraded:
    """Bring a database that an earlier Optuna or clrsearch made to the versions installed here.

    Raises:
        StorageError: there is no database, it is newer, or a change failed.
    """
    quiet_optuna()
    return upgrade(storage_url(storage))


def storage_url(given: Storage) -> StorageUrl:
    """The database given, else that of the environment, else a file in the user's folder.

    The environment names it by ``CLRSEARCH_STORAGE``, or by ``CLRSEARCH_STORAGE_FILE`` a file that
    holds its URL.
    """
    if isinstance(given, StorageUrl):
        return given.absolute()
    text, file = (os.environ.get(name) for name in (STORAGE_VARIABLE, FILE_VARIABLE))
    if given:
        return StorageUrl(given).absolute()
    if text and file:
        raise StorageError(f"{STORAGE_VARIABLE} and {FILE_VARIABLE} are both set: unset one")
    if file:
        return StorageUrl.from_file(Path(file))
    return StorageUrl(text).absolute() if text else StorageUrl.default()


def checkpoint_folder(url: StorageUrl, study: Study, given: Path | None) -> Path:
    """Where a study's checkpoints lie.

    That is in the folder given, else in that of ``CLRSEARCH_CHECKPOINT_DIR``, else beside a SQLite
    file, else in the user's data folder.
    """
    variable = os.environ.get(CHECKPOINT_VARIABLE)
    if given is not None or variable:
        folder = (given or Path(str(variable))).absolute()
    elif url.file is not None:
        folder = url.file.with_name(f"{url.file.stem}-checkpoints")
    else:
        folder = platformdirs.user_data_path("clrsearch", appauthor=False) / "checkpoints"
    return folder / study.uuid


def default_name(plan: StudyPlan) -> str:
    """What a study is called that was given no name: as its task's module or file."""
    place = plan.task.partition(":")[0]
    return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


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
    drift = [] if allow_drift else _drift(study, loaded)
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
    _refuse_drift(study, drift)
    study.grow(plan.trials if "trials" in plan.model_fields_set else study.plan.trials)


def _load_same(study: Study, task_dir: Path | None, *, allow_drift: bool) -> LoadedTask:
    """The study's task.

    Raises:
        StudyError: its source or a package is not the one that the study was made with.
    """
    plan = study.plan
    folder = (task_dir or Path.cwd()).absolute()
    loaded = load_task(plan.task, options=plan.options, folder=folder)
    if not allow_drift:
        _refuse_drift(study, _drift(study, loaded))
    return loaded


def _drift(study: Study, loaded: LoadedTask) -> list[str]:
    """In what the code here differs from the code that the study was made with."""
    changed = loaded.source != study.facts.source
    found = [f"the source of {study.plan.task} has changed"] if changed else []
    for package in ("clrsearch", "torch"):
        there, here = study.versions[package], importlib.metadata.version(package)
        if there.partition("+")[0] != here.partition("+")[0]:  # not the build: +cpu or +cu128
            found.append(f"{package} was {there} and is {here}")
    return found


def _refuse_drift(study: Study, drift: list[str]) -> None:
    if drift:
        raise PlanMismatch(
            f"since {study.name} was made, {' and '.join(drift)}: new trials could not be compared "
            "with its own. Begin another with --name, or go on all the same with --allow-drift"
        )


def _require_room(url: StorageUrl, workers: int) -> None:
    """Refuse more workers than SQLite serves."""
    if url.file is not None and workers > SQLITE_WORKERS:
        raise StorageError(
            f"SQLite serves up to {SQLITE_WORKERS} workers, not {workers}: for more of them keep "
            "the study in PostgreSQL (--storage postgresql://USER@HOST/DATABASE)"
        )
