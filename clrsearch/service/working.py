"""Work on studies, in this process or by starting workers."""

from __future__ import annotations

import shutil
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
    PlanError,
    StorageError,
)
from clrsearch.launch import LocalLauncher
from clrsearch.results import Snapshot, snapshot
from clrsearch.search import Record, Study, end_if_over
from clrsearch.service.confirming import rounds
from clrsearch.service.equipment import (
    DEFAULTS,
    LOGS,
    TRUNKS,
    Trainer,
    found_device,
    require_room,
    require_shares,
    required_device,
    sharing_in,
    trainer_of,
    worker_command,
)
from clrsearch.service.grouped import follow, rank_device, work_in_group
from clrsearch.service.paths import (
    Storage,
    checkpoint_folder,
    storage_url,
)
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
        work_in_group(name, worker or worker_name(), ends_with_parent=ends_with_parent, **how)
    elif as_rank and training.own_rank() > 0:
        on_leave(*_outcome(lambda: follow(name, storage, settings)))
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

    def work_off(study: Study, device: torch.device, trainer: Trainer) -> bool:
        """Work on the search, then on its confirmation; False if interrupted or time is up."""

        def work_on(each: Study) -> bool:
            folder = checkpoint_folder(url, each, settings.checkpoint_dir)
            return workers.Worker(
                each,
                trainer.make_run,
                device,
                training.Checkpoints(folder),
                name=worker or worker_name(),
                settings=settings,
                interruption=interruption,
                on_end=lambda record: on_end(record, each),
                on_wait=waits,
                on_note=on_note,
                on_hang=on_hang,
                in_rounds=each is not study and study.plan.confirm.seeds is None,
                ranks=settings.gpus_per_trial,
                lanes=trainer.lanes,
                sharing=sharing_in(
                    folder / TRUNKS, each, device, trainer.source, settings, on_note
                ),
            ).work()

        interruption.end_in(patience(lambda: study.seconds_left))
        ended = work_on(study) and all(map(work_on, rounds(study, patience)))
        patience(partial(end_if_over, study))
        return ended

    with open_database(url, patience=patience) as database:
        patience(lambda: require_writable(database))
        study = patience(lambda: Study.open(database, name))
        require_room(url, len(patience(study.slots.workers)) + 1)
        kind = patience(lambda: required_device(study, settings))
        device = (
            rank_device(study.name, kind, settings)
            if as_rank
            else found_device(study.name, kind, settings.device, own_process=own_process)
        )
        deterministic = study.plan.deterministic
        computing = training.computing(device, deterministic=deterministic)
        with computing, ExitStack() as opened:
            group = opened.enter_context(training.joined(device)) if as_rank else None
            trials = patience(study.progress).busy
            trainer = trainer_of(study, device, settings, group, trials=trials)
            if trainer.packing:
                patience(partial(study.note_packing, trainer.packing))
                on_note(trainer.packing)
            if group is not None:
                led = opened.enter_context(training.lead(trainer.make_run, group))
                trainer = replace(trainer, make_run=led)
            while work_off(study, device, trainer):
                if not _wait_for_slots(study, settings.idle_wait or 0.0, interruption, patience):
                    return
                study = patience(study.reopen)


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


def watch_workers(
    study: Study,
    url: StorageUrl,
    settings: WorkerSettings,
    devices: Sequence[str],
    *,
    on_change: Callable[[Snapshot], None],
    on_note: Callable[[str], None],
    on_loss: Callable[[str], None] = lambda text: None,
) -> bool:
    """Run a local worker per device until no slot is left; returns whether they were interrupted.

    Their output goes to the folder ``logs`` in the study's checkpoint folder. ``on_loss`` is called
    with those of the messages that say how a worker was lost.
    """
    require_shares(study.facts.batch_size, settings)
    _allow_work(study)
    if settings.lanes is None and len(set(devices)) < len(devices):
        settings = replace(settings, lanes="off")  # workers that share a device pack it themselves
    settings = replace(settings, crew=len(devices))
    logs = checkpoint_folder(url, study, settings.checkpoint_dir) / LOGS
    make_folder(logs)
    told: set[str] = set()

    def changed() -> None:
        on_change(snapshot(study))
        if settings.lanes != "off" and (packing := study.packing) and packing not in told:
            told.add(packing)
            on_note(packing)

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
        on_change=changed,
        on_note=on_note,
        on_loss=on_loss,
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
    if study.packing:
        study.note_packing("")
    for each in study.stages():
        each.stop(None)
        each.forget_departures()


def _tidy(study: Study, url: StorageUrl, settings: WorkerSettings) -> None:
    """Remove what trials shared, and the confirmation's checkpoint folder if it is empty."""
    patience = Patience(settings.storage_patience)
    stages = patience(study.stages)
    for each in stages:
        if not patience(each.slots.unfinished):
            folder = checkpoint_folder(url, each, settings.checkpoint_dir) / TRUNKS
            shutil.rmtree(folder, ignore_errors=True)
    for each in stages[1:]:
        with suppress(OSError, StorageError):  # not empty: trials will resume from it
            checkpoint_folder(url, each, settings.checkpoint_dir).rmdir()
