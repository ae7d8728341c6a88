"""Launch workers for an existing study, on this machine or through a scheduler."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

from clrsearch import training
from clrsearch.errors import PlanError, StorageError, StudyError
from clrsearch.launch import (
    NOTICE_SECONDS,
    RayCluster,
    RaySubmitter,
    SlurmJob,
    SlurmSubmitter,
    Submitter,
)
from clrsearch.results import Snapshot
from clrsearch.search import Study, is_over
from clrsearch.service.crowding import crowd
from clrsearch.service.equipment import (
    DEFAULTS,
    require_gpus,
    require_room,
    require_shares,
    resolved,
    wanted_device,
    worker_command,
)
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.plans import run_command
from clrsearch.service.provenance import refuse_drift, sources_of
from clrsearch.service.running import Result, result_of
from clrsearch.service.tryout import Tryout
from clrsearch.service.working import watch_workers
from clrsearch.storage import StorageUrl, open_database, quiet_optuna
from clrsearch.worker import WorkerSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The number of workers to launch, and their options.

    Attributes:
        count: number of workers.
        per_gpu: number of workers that share a GPU; None for one per GPU, or to leave it to the
            scheduler; ``"auto"`` finds out how many pay, on this machine.
        settings: how they work.
    """

    count: int
    per_gpu: Literal["auto"] | int | None = None
    settings: WorkerSettings = DEFAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch(Generic[T]):
    """Workers that are ready to start.

    Attributes:
        text: the commands or job script that ``start`` runs, with the password hidden.
        notes: messages for the user.
        start: starts the workers.
    """

    text: str
    notes: Sequence[str]
    start: Callable[[], T]


def launch_local(
    name: str,
    workers: Workers,
    *,
    storage: Storage = None,
    on_change: Callable[[Snapshot], None] = lambda snapshot: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Launch[Result]:
    """Prepare workers on this machine; ``start`` blocks until they have exited, as ``run`` does.

    Raises:
        ClrsearchError: the study, task, storage or device is not valid.
        StudyStopped: raised by ``start`` if the task's code fails repeatedly.
    """
    import torch

    ready = _prepare(name, workers, storage)
    require_room(ready.url, ready.count)
    if workers.per_gpu is None:
        require_gpus(replace(ready.settings, device=ready.device))
        devices = training.worker_devices(
            ready.device,
            ready.count,
            slots=ready.count,
            gpus_per_trial=ready.settings.gpus_per_trial,
        )
    else:
        gpus = torch.cuda.device_count()
        per_gpu, count = workers.per_gpu, ready.count
        if per_gpu == "auto":
            per_gpu, reason = _crowd(ready, name, gpus)
            on_note(reason)
            count = min(count, per_gpu * gpus)
        devices = training.per_gpu_devices(per_gpu, count, gpus=gpus)

    def start() -> Result:
        began = time.monotonic()
        with open_database(ready.url) as database:
            study = Study.open(database, name)
            interrupted = watch_workers(
                study, ready.url, ready.settings, devices, on_change=on_change, on_note=on_note
            )
            return result_of(study, ready.url, ready.settings, interrupted=interrupted, began=began)

    commands = [
        worker_command(name, ready.url, replace(ready.settings, device=each), None)
        for each in devices
    ]
    lines = [shlex.join(each.arguments) for each in commands]
    return Launch(text="\n".join([*_shown(ready.url), *lines]), notes=ready.notes, start=start)


def _crowd(ready: _Ready, name: str, gpus: int) -> tuple[int, str]:
    """The number of workers per GPU that pay, and why."""
    if not gpus:
        raise PlanError(
            "--per-gpu auto measures how many workers are worth it, but there is no GPU here"
        )
    most = min(-(-ready.count // gpus), training.usable_cores() // gpus)
    with open_database(ready.url) as database:
        study = Study.open(database, name)
        return crowd(study, ready.settings, "cuda:0", most=max(most, 1))


def launch_slurm(
    name: str,
    workers: Workers,
    *,
    minutes: int,
    partition: str | None = None,
    gres: str | None = None,
    options: Mapping[str, str] | None = None,
    log_dir: Path | None = None,
    storage: Storage = None,
) -> Launch[str]:
    """Prepare workers as a SLURM job array; ``start`` submits it and returns a message about it.

    With ``per_gpu``, that many workers share a job and its GPU.

    Args:
        name: the study.
        workers: the workers and their options.
        minutes: time limit of each job, which is requeued when it is reached.
        partition: SLURM partition.
        gres: generic resources of each job; by default one GPU with ``per_gpu``, or those of a
            trial on several GPUs; else none.
        options: further sbatch options.
        log_dir: folder for the jobs' files; by default ``clrsearch-jobs``.
        storage: the database.

    Raises:
        ClrsearchError: the study, task or storage is not valid, or submitit is not installed;
            raised by ``start`` if SLURM is not available or rejects the job.
    """
    if minutes * 60 <= NOTICE_SECONDS:
        raise PlanError(
            f"a time limit of {minutes} minutes is too short: a job's workers exit "
            f"{NOTICE_SECONDS} seconds before the limit"
        )
    per_gpu = _sharing(workers)
    job = SlurmJob(
        name=name,
        folder=(log_dir or Path("clrsearch-jobs")).absolute(),
        minutes=minutes,
        workers=per_gpu or 1,
        gpus=0 if gres else _gpus(workers),
        partition=partition,
        gres=gres or ("gpu:1" if per_gpu else None),
        options=options or {},
    )
    return _submission(name, workers, SlurmSubmitter(job), storage)


def launch_ray(
    name: str,
    workers: Workers,
    *,
    address: str | None = None,
    num_gpus: float | None = None,
    max_retries: int = 3,
    allow_unauthenticated: bool = False,
    storage: Storage = None,
) -> Launch[str]:
    """Prepare workers as Ray tasks, on the cluster at ``address`` or on a new local one.

    ``num_gpus`` is per worker and defaults to ``1 / per_gpu``, or without ``per_gpu`` to the GPUs
    of a trial if it trains on several, else to 0. ``start`` blocks until the workers have exited,
    because the local cluster or the connection ends with this process.

    Raises:
        ClrsearchError: the study, task or storage is not valid, Ray is not installed, or the
            cluster accepts unauthenticated connections; raised by ``start`` if workers gave up.
    """
    per_gpu = _sharing(workers)
    if num_gpus is None:
        num_gpus = 1 / per_gpu if per_gpu else float(_gpus(workers))
    cluster = RayCluster(
        address=address,
        num_cpus=workers.settings.gpus_per_trial,
        num_gpus=num_gpus,
        max_retries=max_retries,
        allow_unauthenticated=allow_unauthenticated,
    )
    submitter = RaySubmitter(cluster)
    url = storage_url(storage)
    if address is not None and url.has_password and url.kept_in is None:
        raise StorageError(
            "Ray shows the environment variables of tasks on its dashboard: put the URL, which has "
            "a password, into a file at the same path on every machine of the cluster, and pass it "
            "with --storage-file"
        )
    return _submission(name, workers, submitter, url)


def _sharing(workers: Workers) -> int | None:
    """The number of workers per GPU, where it has to be known beforehand."""
    if workers.per_gpu == "auto":
        raise PlanError(
            "--per-gpu auto measures how many workers are worth it on this machine, and these run "
            "on others: try it with launch local on one of them, and give the number here"
        )
    return workers.per_gpu


def _gpus(workers: Workers) -> int:
    """The GPUs to ask a scheduler for, per worker; 0 to leave it to the scheduler."""
    ranks, device = workers.settings.gpus_per_trial, workers.settings.device
    return ranks if ranks > 1 and device != "cpu" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """Validated launch parameters, common to all launchers."""

    url: StorageUrl
    count: int
    settings: WorkerSettings
    device: str | None
    notes: Sequence[str]


def _submission(name: str, workers: Workers, submitter: Submitter, storage: Storage) -> Launch[str]:
    url = storage_url(storage)
    if url.file is not None:
        raise StorageError(
            f"{url} is a file on this machine, which workers on other machines cannot share: keep "
            "the study in PostgreSQL (postgresql://USER@HOST/DATABASE), and start it there"
        )
    ready = _prepare(name, workers, url)
    command = worker_command(name, url, ready.settings, None)
    commands = [command] * ready.count
    return Launch(
        text="\n".join([*_shown(url), submitter.render(commands)]),
        notes=ready.notes,
        start=lambda: submitter.submit(commands),
    )


def _prepare(name: str, workers: Workers, storage: Storage) -> _Ready:
    """Validate the request, and limit the number of workers to the slots that are left.

    Raises:
        ClrsearchError: the study, task or storage is not valid.
    """
    for option, number in {"workers": workers.count, "per_gpu": workers.per_gpu}.items():
        if isinstance(number, int) and number < 1:
            raise PlanError(f"{option} must be at least 1, not {number}")
    if workers.per_gpu and workers.settings.gpus_per_trial > 1:
        raise PlanError("give either --per-gpu or --gpus-per-trial, not both")
    quiet_optuna()
    url = storage_url(storage)
    settings = replace(resolved(workers.settings, url), crew=workers.count)
    if workers.per_gpu and settings.lanes is None:  # either packs the trials
        settings = replace(settings, lanes="off")
    with open_database(url) as database:
        study = Study.open(database, name)
        if not settings.allow_drift:
            refuse_drift(study, sources_of(study.plan, settings.task_dir))
        require_shares(study.facts.batch_size, settings)
        device = wanted_device(study, settings)
        with Tryout(
            study.plan,
            device=settings.device,
            task_dir=settings.task_dir,
            data_dir=settings.data_dir,
        ):
            pass  # only check that the task loads
        if is_over(study):
            raise StudyError(
                f"the time granted to {name} is over: "
                f"{run_command(study, minutes=study.record.plan.minutes)} grants it again"
            )
        left = study.progress().busy
        slots_to_come = study.limits.open_ended
        more = run_command(study, trials=study.plan.trials + 50)
    count, notes = workers.count, []
    if settings.idle_wait is None:
        if not left:
            raise StudyError(
                f"no trials of {name} are left: {more} adds some, and with --idle-wait workers "
                "wait for them"
            )
        if count > left and not slots_to_come:
            notes.append(f"{left} trials are left: starting {left} workers instead of {count}")
            count = left
    return _Ready(url=url, count=count, settings=settings, device=device, notes=notes)


def _shown(url: StorageUrl) -> list[str]:
    """The environment variables that give workers the database, with the password hidden."""
    return [f"{name}={url.kept_in or url}" for name, value in url.environment().items() if value]
