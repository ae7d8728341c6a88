"""Work on studies, in this process or by starting workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from clrsearch import training
from clrsearch import worker as workers
from clrsearch.errors import (
    ClrsearchError,
    ExitCode,
    FailsHere,
    PlanError,
    RanksApart,
    StorageError,
    StudyError,
    TaskError,
)
from clrsearch.launch import INTERPRETER, Command, LocalLauncher, end_as, run_ranks
from clrsearch.results import Snapshot, snapshot
from clrsearch.search import Record, Study
from clrsearch.service.confirming import rounds
from clrsearch.service.paths import (
    Storage,
    checkpoint_folder,
    checkpoint_root,
    named_data_folder,
    storage_url,
    task_folder,
)
from clrsearch.service.provenance import load_same
from clrsearch.storage import (
    Patience,
    StorageUrl,
    cause,
    make_folder,
    open_database,
    quiet_optuna,
    require_writable,
)
from clrsearch.worker import Post, Supervisor, WorkerSettings, worker_name

if TYPE_CHECKING:
    import torch

DEFAULTS = WorkerSettings()
LOGS = "logs"
"""The folder for the output of local workers, in a study's checkpoint folder."""
SQLITE_WORKERS = 32
"""Maximum number of workers per SQLite file: with 64, some timed out on its lock; with 32, none."""
IDLE_LOOK_SECONDS = 3.0  # polling interval of a worker without a slot


def work(
    name: str,
    *,
    storage: Storage = None,
    settings: WorkerSettings = DEFAULTS,
    worker: str | None = None,
    own_process: bool = False,
    ends_with_parent: bool = False,
    as_rank: bool = False,
    on_end: Callable[[Record, Study], None] = lambda record, study: None,
    on_wait: Callable[[str], None] = lambda cause: None,
    on_note: Callable[[str], None] = lambda text: None,
    on_hang: Callable[[str], None] | None = None,
    on_leave: Callable[[ClrsearchError | None, int], None] = lambda error, code: None,
) -> None:
    """Work on a study in this process until no slot is left.

    With several GPUs per trial, a process is started for each, and this one waits for them.

    Args:
        name: the study.
        storage: the database.
        settings: how to work.
        worker: the worker's name.
        own_process: hide all other GPUs from this process, which does nothing else.
        ends_with_parent: exit when stdin is closed; a parent process holds its other end.
        as_rank: work as one of the processes that were started for a GPU each.
        on_end: called with each trial that has ended, and its study.
        on_wait: called with the cause of each database outage that is waited out.
        on_note: called with warnings, such as a checkpoint folder that other workers do not share.
        on_hang: called from another thread, with the reason, if a step never ends; it must end the
            process.
        on_leave: called as the last of a group's process, with the error to tell, if any, and the
            exit code; it must end the process at once, for torch's threads may abort it otherwise.

    Raises:
        StudyError: there is no such study, or the task's source or a package has changed since it
            was created.
        StudyStopped: the task's code failed repeatedly.
        SystemExit: in place of the error that a process of a group has told already.
    """
    how: dict[str, Any] = {"storage": storage, "settings": settings, "on_wait": on_wait}
    if settings.gpus_per_trial > 1 and not as_rank:
        if not own_process:
            raise PlanError("gpus_per_trial needs processes of its own, which run starts")
        _work_in_group(name, worker or worker_name(), ends_with_parent=ends_with_parent, **how)
    elif as_rank and training.own_rank() > 0:
        on_leave(*_outcome(lambda: _follow(name, storage, settings)))
    else:
        work_alone = partial(
            _work,
            name,
            worker=worker,
            own_process=own_process,
            ends_with_parent=ends_with_parent,
            as_rank=as_rank,
            on_end=on_end,
            on_note=on_note,
            on_hang=on_hang,
            **how,
        )
        if as_rank:
            on_leave(*_outcome(work_alone))
        else:
            work_alone()


def _outcome(act: Callable[[], None]) -> tuple[ClrsearchError | None, int]:
    """The error to tell and the exit code of a process of a group."""
    try:
        act()
    except ClrsearchError as error:
        return error, error.exit_code
    except SystemExit as left:
        return None, int(left.code or 0)
    return None, ExitCode.DONE


def _work(
    name: str,
    *,
    storage: Storage,
    settings: WorkerSettings,
    worker: str | None,
    own_process: bool,
    ends_with_parent: bool,
    as_rank: bool,
    on_end: Callable[[Record, Study], None],
    on_wait: Callable[[str], None],
    on_note: Callable[[str], None],
    on_hang: Callable[[str], None] | None,
) -> None:
    """Work as the only process of this worker, or as rank 0 of its group; see :func:`work`."""
    minutes = settings.max_minutes
    interruption = workers.Interruption(
        seconds=None if minutes is None else 60 * minutes, trials=settings.max_trials
    )
    if ends_with_parent:
        interruption.ask_when_parent_ends()
    quiet_optuna()
    url = storage_url(storage)

    def waits(error: BaseException) -> None:
        on_wait(cause(error))

    patience = Patience(settings.storage_patience, on_wait=waits)

    def work_off(study: Study, device: torch.device, make_run: training.RunMaker) -> bool:
        """Work on the search, then on its confirmation; False if interrupted."""

        def work_on(each: Study) -> bool:
            return workers.Worker(
                each,
                make_run,
                device,
                training.Checkpoints(checkpoint_folder(url, each, settings.checkpoint_dir)),
                name=worker or worker_name(),
                settings=settings,
                interruption=interruption,
                on_end=lambda record: on_end(record, each),
                on_wait=waits,
                on_note=on_note,
                on_hang=on_hang,
                in_rounds=each is not study and study.plan.confirm.seeds is None,
                ranks=settings.gpus_per_trial,
            ).work()

        return work_on(study) and all(map(work_on, rounds(study, patience)))

    with open_database(url, patience=patience) as database:
        patience(lambda: require_writable(database))
        study = patience(lambda: Study.open(database, name))
        require_room(url, patience(study.slots.live) + 1)
        kind = patience(lambda: _required_device(study, settings))
        device = (
            _rank_device(study.name, kind, settings)
            if as_rank
            else _device(study.name, kind, settings.device, own_process=own_process)
        )
        deterministic = study.plan.deterministic
        computing = training.computing(device, deterministic=deterministic)
        with computing, ExitStack() as opened:
            group = opened.enter_context(training.joined(device)) if as_rank else None
            make_run = _run_maker(study, device, settings, group)
            if group is not None:
                make_run = opened.enter_context(training.lead(make_run, group))
            while work_off(study, device, make_run):
                if not _wait_for_slots(study, settings.idle_wait or 0.0, interruption, patience):
                    return
                study = patience(study.reopen)


def _run_maker(
    study: Study, device: torch.device, settings: WorkerSettings, group: training.Group | None
) -> training.RunMaker:
    """A maker of runs of the study's task.

    Raises:
        FailsHere: there is no memory for it, or the device failed.
    """
    try:
        task = load_same(
            study, settings.task_dir, settings.data_dir, allow_drift=settings.allow_drift
        ).task
        return training.run_maker(
            task, study.facts, device, study.plan.precision, seed=study.plan.seed, group=group
        )
    except (TaskError, RuntimeError, MemoryError) as error:
        failure = workers.device_failure(error)
        if failure is None:
            raise
        raise failure from error


def _work_in_group(
    name: str,
    worker: str,
    *,
    storage: Storage,
    settings: WorkerSettings,
    ends_with_parent: bool,
    on_wait: Callable[[str], None],
) -> None:
    """Start a process for each GPU of a trial, and leave as they do.

    Raises:
        PlanError: the machine has too few GPUs, or they cannot share the study's batches.
        SystemExit: the first process has told an error.
    """
    quiet_optuna()
    url = storage_url(storage)
    patience = Patience(settings.storage_patience, on_wait=lambda error: on_wait(cause(error)))
    with open_database(url, patience=patience) as database:
        study = patience(lambda: Study.open(database, name))
        kind = patience(lambda: _required_device(study, settings))
    require_shares(study.facts.batch_size, settings)
    named = kind if settings.device is None else settings.device
    training.require_gpus(named, settings.gpus_per_trial)
    seen = training.see_only(named, settings.gpus_per_trial)
    command = worker_command(name, url, replace(settings, device=seen), worker)
    command = replace(command, arguments=(*command.arguments, "--as-rank"))
    code = run_ranks(command, settings.gpus_per_trial, ends_with_parent=ends_with_parent)
    end_as(code)
    if code:
        raise SystemExit(code)


def _follow(name: str, storage: Storage, settings: WorkerSettings) -> None:
    """Make the same runs as rank 0, which decides and writes, until it has no more.

    Raises:
        FailsHere: a trial failed in one process of the group alone.
        SystemExit: in place of errors that rank 0 meets as well, and tells.
    """
    quiet_optuna()
    patience = Patience(settings.storage_patience)
    try:
        with open_database(storage_url(storage), patience=patience) as database:
            study = patience(lambda: Study.open(database, name))
            device = _rank_device(
                name, patience(lambda: _required_device(study, settings)), settings
            )
        with (
            training.computing(device, deterministic=study.plan.deterministic),
            training.joined(device) as group,
            workers.ignoring_signals(),
        ):
            training.follow(_run_maker(study, device, settings, group), group)
    except RanksApart as error:
        alone = f"a trial failed in one process of the group alone: {error}"
        raise workers.device_failure(error) or FailsHere(alone) from error
    except ClrsearchError as error:
        raise SystemExit(error.exit_code) from error


def _rank_device(name: str, kind: str | None, settings: WorkerSettings) -> torch.device:
    """The device of one process of a group: of the GPUs that it sees, that of its own number."""
    named = kind if settings.device is None else settings.device
    if training.find_device(named).type == "cuda":
        named = f"cuda:{training.own_rank()}"
    return _device(name, kind, named, own_process=False)


def require_gpus(settings: WorkerSettings) -> None:
    """Refuse more GPUs per trial than there are on this machine.

    Raises:
        PlanError: naming how many there are.
    """
    if settings.gpus_per_trial > 1:
        training.require_gpus(settings.device, settings.gpus_per_trial)


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


def _required_device(study: Study, settings: WorkerSettings) -> str | None:
    """The kind of device that a study's workers need: that of its first trial; None for any."""
    return None if settings.allow_drift else study.device


def wanted_device(study: Study, settings: WorkerSettings) -> str | None:
    """The device that was asked for, or else the kind that the study needs; None for any."""
    return _required_device(study, settings) if settings.device is None else settings.device


def _device(name: str, kind: str | None, asked: str | None, *, own_process: bool) -> torch.device:
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


def _wait_for_slots(
    study: Study, seconds: float, interruption: workers.Interruption, patience: Patience
) -> bool:
    """Wait until slots are added or left by a lost worker; returns whether that happened."""
    end = time.monotonic() + seconds
    with interruption.listening(), suppress(training.Interrupted):
        while (left := end - time.monotonic()) > 0:
            interruption.sleep(min(left, IDLE_LOOK_SECONDS))
            if patience(study.progress).free:
                return True
    return False


def resolved(settings: WorkerSettings, url: StorageUrl) -> WorkerSettings:
    """The settings with every folder as a worker in another process needs it."""
    return replace(
        settings,
        task_dir=task_folder(settings.task_dir),
        data_dir=named_data_folder(settings.data_dir),
        checkpoint_dir=checkpoint_root(url, settings.checkpoint_dir),
    )


def watch_workers(
    study: Study,
    url: StorageUrl,
    settings: WorkerSettings,
    devices: Sequence[str],
    *,
    on_change: Callable[[Snapshot], None],
    on_note: Callable[[str], None],
) -> bool:
    """Run a local worker per device until no slot is left; returns whether they were interrupted.

    Their output goes to the folder ``logs`` in the study's checkpoint folder.
    """
    require_shares(study.facts.batch_size, settings)
    _allow_work(study)
    logs = checkpoint_folder(url, study, settings.checkpoint_dir) / LOGS
    make_folder(logs)
    interrupted = Supervisor(
        study,
        LocalLauncher(logs),
        [
            Post(
                device=device,
                command=partial(worker_command, study.name, url, replace(settings, device=device)),
            )
            for device in devices
        ],
        patience=settings.storage_patience,
        on_change=lambda: on_change(snapshot(study)),
        on_note=on_note,
    ).watch()
    _tidy(study, url, settings)
    return interrupted


def work_here(
    study: Study,
    url: StorageUrl,
    settings: WorkerSettings,
    *,
    on_change: Callable[[Snapshot], None],
    on_note: Callable[[str], None],
) -> None:
    """Work on a study in this process until no slot is left, as one of its workers would.

    Raises:
        StudyStopped: the task's code failed repeatedly.
    """
    _allow_work(study)
    on_change(snapshot(study))
    work(
        study.name,
        storage=url,
        settings=settings,
        on_end=lambda record, stage: on_change(snapshot(study)),
        on_wait=on_note,
        on_note=on_note,
    )
    _tidy(study, url, settings)


def _allow_work(study: Study) -> None:
    """Clear an earlier stop and who left before, so that workers can start."""
    for each in study.stages():
        each.stop(None)
        each.forget_departures()


def _tidy(study: Study, url: StorageUrl, settings: WorkerSettings) -> None:
    """Remove the confirmation's checkpoint folder if it is empty."""
    for each in Patience(settings.storage_patience)(study.stages)[1:]:
        with suppress(OSError, StorageError):  # not empty: trials will resume from it
            checkpoint_folder(url, each, settings.checkpoint_dir).rmdir()


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


def require_room(url: StorageUrl, workers: int) -> None:
    """Raise a StorageError if there are more workers than SQLite can serve."""
    if url.file is not None and workers > SQLITE_WORKERS:
        raise StorageError(
            f"SQLite supports up to {SQLITE_WORKERS} workers, not {workers}: for more, keep the "
            "study in PostgreSQL (--storage postgresql://USER@HOST/DATABASE)"
        )
