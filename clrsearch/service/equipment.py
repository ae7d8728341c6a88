"""What a worker needs: its command line, its folders, its device, and a maker of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clrsearch import training
from clrsearch import worker as workers
from clrsearch.errors import PlanError, StorageError, StudyError, TaskError
from clrsearch.launch import INTERPRETER, Command
from clrsearch.schedules import ScheduleFree, schedulefree_package
from clrsearch.search import Study
from clrsearch.service.paths import checkpoint_root, named_data_folder, task_folder
from clrsearch.service.provenance import load_same
from clrsearch.storage import StorageUrl
from clrsearch.worker import WorkerSettings

if TYPE_CHECKING:
    import torch

DEFAULTS = WorkerSettings()
LOGS = "logs"
"""The folder for the output of local workers, in a study's checkpoint folder."""
TRUNKS = "trunks"
"""The folder for what trials with the same beginning share, in a study's checkpoint folder."""
SQLITE_WORKERS = 32
"""Maximum number of workers per SQLite file: with 64, some timed out on its lock; with 32, none."""


def resolved(settings: WorkerSettings, url: StorageUrl) -> WorkerSettings:
    """The settings with every folder as a worker in another process needs it."""
    return replace(
        settings,
        task_dir=task_folder(settings.task_dir),
        data_dir=named_data_folder(settings.data_dir),
        checkpoint_dir=checkpoint_root(url, settings.checkpoint_dir),
    )


def worker_command(
    name: str, url: StorageUrl, settings: WorkerSettings, worker: str | None
) -> Command:
    """The command line of a worker; the database is passed only as an environment variable.

    Without a name, the worker chooses its own. A worker with a name is a child of this process and
    ends with it.
    """
    return Command(
        arguments=(
            *(*INTERPRETER, "-u", "-m", "clrsearch", "worker", name),
            *(["--worker-name", worker, "--ends-with-parent"] if worker else []),
            *settings.to_arguments(),
        ),
        environment=url.environment(),
        name=worker or "",
    )


def wanted_device(study: Study, settings: WorkerSettings) -> str | None:
    """The device that was asked for, or else the kind that the study needs; None for any."""
    return required_device(study, settings) if settings.device is None else settings.device


def required_device(study: Study, settings: WorkerSettings) -> str | None:
    """The kind of device that a study's workers need: that of its first trial; None for any."""
    return None if settings.allow_drift else study.device


def found_device(
    name: str, kind: str | None, asked: str | None, *, own_process: bool
) -> torch.device:
    """The device to train the study ``name`` on: the one ``asked`` for, or one of its ``kind``.

    Raises:
        PlanError: there is no such device here.
        StudyError: it is of another kind, on which results differ.
    """
    named = kind if asked is None else asked
    found = training.find_device(training.see_only(named) if own_process else named)
    if kind not in (None, found.type):
        raise StudyError(
            f"{name} trains on {kind}, and this worker on {found.type}: leave out --device "
            f"or name {kind}; --allow-drift mixes their results"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """What trains a study's trials: a maker of runs, and lanes if there are any.

    ``source`` is the hash of the task's source. ``packing`` says in one line why there are lanes or
    none; empty if nobody asked.
    """

    make_run: training.RunMaker
    source: str
    lanes: training.Lanes | None = None
    packing: str = ""


def trainer_of(
    study: Study,
    device: torch.device,
    settings: WorkerSettings,
    group: training.Group | None,
    *,
    trials: int,
) -> Trainer:
    """What trains the study's task on a device, as one process of a ``group`` if there is one.

    So many ``trials`` are left for all workers.

    Raises:
        PlanError: lanes are asked for, and the task is not fit for them.
        ScheduleError: schedule_free is searched, and its package is not installed.
        FailsHere: there is no memory for it, or the device failed.
    """
    try:
        task, source = load_same(
            study, settings.task_dir, settings.data_dir, allow_drift=settings.allow_drift
        )
        facts = study.facts
        if settings.allow_drift:  # of the splits as well
            facts = facts.model_copy(update={"splits": None})
        how: dict[str, Any] = {"device": device, "precision": study.plan.precision}
        averages = ScheduleFree.family in study.plan.searched
        if averages:
            schedulefree_package()
        data = training.load_data(task, facts, device, seed=study.plan.seed, group=group)
        make_run = training.run_maker(task, facts, group=group, data=data, **how)
        wanted = wanted_lanes(study, settings, device)
        if wanted == 1 or group is not None:
            return Trainer(make_run=make_run, source=source)
        chosen = training.choose_lanes(
            task,
            facts,
            data,
            wanted,
            trials=trials // settings.crew,
            deterministic=study.plan.deterministic,
            averages=averages,
            seed=study.plan.seed,
            **how,
        )
        return Trainer(make_run=make_run, source=source, lanes=chosen.lanes, packing=chosen.reason)
    except (TaskError, RuntimeError, MemoryError) as error:
        failure = workers.device_failure(error)
        if failure is None:
            raise
        raise failure from error


def wanted_lanes(
    study: Study, settings: WorkerSettings, device: torch.device
) -> Literal["auto"] | int:
    """The number of lanes asked for on a device, or ``"auto"``.

    By default there are none where trials have beginnings in common, which lanes cannot share.
    """
    if settings.lanes is None:
        alike = study.plan.horizon is not None or study.plan.trunks is not None
        return "auto" if device.type == "cuda" and not alike else 1
    return 1 if settings.lanes == "off" else settings.lanes


def sharing_in(
    folder: Path,
    study: Study,
    device: torch.device,
    source: str,
    settings: WorkerSettings,
    on_note: Callable[[str], None],
) -> workers.Sharing | None:
    """What a worker's trials share with others that begin alike, in a folder; None for nothing.

    Lanes and groups of GPUs share nothing: their results are not equal to the last bit.
    """
    if not settings.trunk_gb or settings.gpus_per_trial > 1:
        return None
    trunks = training.Trunks(folder, settings.trunk_gb * 1e9)
    return workers.Sharing(study, trunks, f"{training.model_of(device)} {source}", on_note)


def require_gpus(settings: WorkerSettings) -> None:
    """Refuse more GPUs per trial than there are on this machine.

    Raises:
        PlanError: naming how many there are.
    """
    if settings.gpus_per_trial > 1:
        training.require_gpus(settings.device, settings.gpus_per_trial)


def crowding(devices: Sequence[str]) -> float:
    """How many workers share a core if these, one per worker, are all this machine's own CPU."""
    cores = training.usable_cores()
    return max(devices.count("cpu") / cores, 1.0)


def require_shares(batch_size: int | None, settings: WorkerSettings) -> None:
    """Refuse a batch size that the GPUs of a trial cannot share.

    Raises:
        PlanError: naming sizes that they can.
    """
    ranks = settings.gpus_per_trial
    if batch_size is not None and batch_size % ranks:
        fits = batch_size // ranks * ranks or ranks
        raise PlanError(
            f"--gpus-per-trial {ranks} does not divide batch_size, which is {batch_size} for all "
            f"GPUs together: set batch_size to {fits}, or give another number of GPUs"
        )


def require_room(url: StorageUrl, workers: int) -> None:
    """Raise a StorageError if there are more workers than SQLite can serve."""
    if url.file is not None and workers > SQLITE_WORKERS:
        raise StorageError(
            f"SQLite supports up to {SQLITE_WORKERS} workers, not {workers}: for more, keep the "
            "study in PostgreSQL (--storage postgresql://USER@HOST/DATABASE)"
        )
