"""Working on studies: in this process, or by workers that are started.

What trains is imported where it is called, so that listing studies does not cost torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clrsearch.errors import PlanError, StorageError
from clrsearch.launch import INTERPRETER, Command, LocalLauncher
from clrsearch.reports import Snapshot, snapshot
from clrsearch.search import Record, Study
from clrsearch.service.confirming import rounds
from clrsearch.service.paths import (
    Storage,
    checkpoint_folder,
    storage_url,
    study_folder,
)
from clrsearch.service.provenance import load_same
from clrsearch.storage import (
    PATIENCE_SECONDS,
    Patience,
    StorageUrl,
    cause,
    make_folder,
    open_database,
    quiet_optuna,
    require_writable,
)
from clrsearch.worker import Supervisor, worker_name

if TYPE_CHECKING:
    from clrsearch.worker.signals import Interruption

CHECKPOINT_SECONDS = 10.0
LOGS = "logs"
"""The folder, beside a study's checkpoints, for what local workers print."""
SQLITE_WORKERS = 32
"""More processes than that wait for the lock of one file in vain: some of 64, none of 32."""
IDLE_LOOK_SECONDS = 3.0  # between two looks of a worker without a slot


def work(
    name: str,
    *,
    storage: Storage = None,
    device: str | None = None,
    task_dir: Path | None = None,
    data_dir: Path | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    storage_patience: float = PATIENCE_SECONDS,
    allow_drift: bool = False,
    max_minutes: float | None = None,
    max_trials: int | None = None,
    idle_wait: float | None = None,
    worker: str | None = None,
    ends_with_parent: bool = False,
    on_end: Callable[[Record, Study], None] = lambda record, study: None,
    on_wait: Callable[[str], None] = lambda cause: None,
    on_note: Callable[[str], None] = lambda text: None,
    on_hang: Callable[[str], None] | None = None,
) -> None:
    """Work on a study in this process until no slot is left; see :func:`run` for the options.

    After ``max_minutes``, or the end of ``max_trials`` trials, it leaves as it does on SIGTERM,
    with a checkpoint and its slot open to others. Without a slot it stays for ``idle_wait``
    seconds, in case that some are added. With ``ends_with_parent`` it leaves when its standard
    input ends, of which a parent process holds the other end. ``on_wait`` is called with the cause
    of each outage of the database that it waits out, ``on_note`` with what is amiss otherwise: a
    checkpoint folder that other workers do not share. Where a step never ends, ``on_hang`` is to
    end the process: it is called with the reason, from another thread.

    Raises:
        StudyError: there is no such study, or the task's source or a package is not the one that it
            was made with.
        StudyStopped: the task's code failed again and again.
    """
    from clrsearch.training import Checkpoints, RunMaker, run_maker
    from clrsearch.training.device import find_device, one_thread
    from clrsearch.worker.loop import Worker
    from clrsearch.worker.signals import Interruption

    require_limits(max_minutes=max_minutes, max_trials=max_trials, idle_wait=idle_wait)
    interruption = Interruption(
        seconds=None if max_minutes is None else 60 * max_minutes, trials=max_trials
    )
    if ends_with_parent:
        interruption.ask_when_parent_ends()
    quiet_optuna()
    chosen = find_device(device)
    url = storage_url(storage)

    def waits(error: BaseException) -> None:
        on_wait(cause(error))

    patience = Patience(storage_patience, on_wait=waits)

    def work_off(study: Study, make_run: RunMaker) -> bool:
        """Work on the search, then on its confirmation; False where there was no time for all."""

        def work_on(each: Study) -> bool:
            return Worker(
                each,
                make_run,
                chosen,
                Checkpoints(checkpoint_folder(url, each, checkpoint_dir)),
                name=worker or worker_name(),
                checkpoint_seconds=checkpoint_seconds,
                patience=storage_patience,
                interruption=interruption,
                on_end=lambda record: on_end(record, each),
                on_wait=waits,
                on_note=on_note,
                on_hang=on_hang,
                in_rounds=each is not study and study.plan.confirm.seeds is None,
            ).work()

        return work_on(study) and all(map(work_on, rounds(study, patience)))

    with open_database(url, patience=patience) as database, one_thread(chosen):
        patience(lambda: require_writable(database))
        study = patience(lambda: Study(database, name))
        require_room(url, patience(study.slots.live) + 1)
        task = load_same(study, task_dir, data_dir, allow_drift=allow_drift).task
        make_run = run_maker(task, study.facts, chosen, study.plan.precision)
        while work_off(study, make_run):
            if not _wait_for_slots(study, idle_wait or 0.0, interruption, patience):
                return
            study = patience(study.again)


def _wait_for_slots(
    study: Study, seconds: float, interruption: Interruption, patience: Patience
) -> bool:
    """Wait for slots that are added, or that a lost worker leaves; whether some came."""
    from clrsearch.training import Interrupted

    end = time.monotonic() + seconds
    with interruption.listening(), suppress(Interrupted):
        while (left := end - time.monotonic()) > 0:
            interruption.sleep(min(left, IDLE_LOOK_SECONDS))
            if patience(lambda: _free(study)):
                return True
    return False


def watch_workers(
    study: Study,
    commands: Sequence[Callable[[str], Command]],
    checkpoints: Path,
    *,
    patience: float,
    on_change: Callable[[Snapshot], None],
    on_note: Callable[[str], None],
) -> bool:
    """Let local workers work until no slot is left; whether they were interrupted.

    Their output goes into the folder ``logs`` beside the study's checkpoints.
    """
    _allow_work(study)
    logs = checkpoints / LOGS
    make_folder(logs)
    interrupted = Supervisor(
        study,
        LocalLauncher(logs),
        commands,
        patience=patience,
        on_change=lambda: on_change(snapshot(study)),
        on_note=on_note,
    ).watch()
    _tidy(study, checkpoints, patience)
    return interrupted


def work_here(
    study: Study,
    url: StorageUrl,
    *,
    device: str,
    data_dir: Path | None,
    checkpoints: Path,
    checkpoint_seconds: float,
    storage_patience: float,
    allow_drift: bool,
    on_change: Callable[[Snapshot], None],
    on_note: Callable[[str], None],
) -> None:
    """Work on a study in this process, which alone has its task, until no slot is left.

    Raises:
        StudyStopped: the task's code failed again and again.
    """
    _allow_work(study)
    on_change(snapshot(study))
    work(
        study.name,
        storage=url,
        device=device,
        data_dir=data_dir,
        checkpoint_dir=checkpoints.parent,
        checkpoint_seconds=checkpoint_seconds,
        storage_patience=storage_patience,
        allow_drift=allow_drift,
        on_end=lambda record, stage: on_change(snapshot(study)),
        on_wait=on_note,
        on_note=on_note,
    )
    _tidy(study, checkpoints, storage_patience)


def _allow_work(study: Study) -> None:
    """Let workers begin, whatever it was stopped for before."""
    for each in study.stages():
        each.stop(None)


def _tidy(study: Study, checkpoints: Path, patience: float) -> None:
    """Remove the folder of the confirmation's checkpoints, if nothing is left in it."""
    for each in Patience(patience)(study.stages)[1:]:
        with suppress(OSError, StorageError):  # not empty: trials are left that resume from them
            study_folder(checkpoints.parent, each.uuid).rmdir()


def wanted_stages(study: Study) -> list[Study]:
    """The search and, if one is asked for and has begun, the confirmation."""
    return study.stages() if study.plan.confirm.enabled else [study]


def _free(study: Study) -> int:
    """How many slots are open, or held under a lease that has run out."""
    return sum(each.slots.unfinished() - each.slots.live() for each in wanted_stages(study))


def require_limits(
    *, max_minutes: float | None, max_trials: int | None, idle_wait: float | None
) -> None:
    """Refuse limits under which a worker could not work.

    Raises:
        PlanError: naming the one.
    """
    limits = {"max_minutes": max_minutes, "max_trials": max_trials, "idle_wait": idle_wait}
    for name, limit in limits.items():
        if limit is not None and limit <= 0:
            raise PlanError(f"{name} must be above 0, not {limit:g}")


def worker_options(
    *,
    task_dir: Path,
    data_dir: Path | None,
    checkpoint_dir: Path,
    checkpoint_seconds: float,
    storage_patience: float,
    allow_drift: bool,
    max_minutes: float | None = None,
    max_trials: int | None = None,
    idle_wait: float | None = None,
) -> list[str]:
    """The options of a worker's command line."""
    given: dict[str, object] = {
        "--task-dir": task_dir,
        "--data-dir": data_dir,
        "--checkpoint-dir": checkpoint_dir,
        "--checkpoint-seconds": f"{checkpoint_seconds:g}",
        "--storage-patience": f"{storage_patience:g}",
        "--max-minutes": max_minutes,
        "--max-trials": max_trials,
        "--idle-wait": idle_wait,
    }
    options = [text for key, value in given.items() if value is not None for text in (key, value)]
    return [*map(str, options), *(["--allow-drift"] if allow_drift else [])]


def worker_command(
    name: str, url: StorageUrl, device: str | None, options: Sequence[str], worker: str | None
) -> Command:
    """The command line of a worker; the database is passed by its variable alone.

    Without a device or a name, the worker finds one where it runs. One that is given a name is a
    child of this process, and ends with it.
    """
    return Command(
        arguments=(
            *(*INTERPRETER, "-u", "-m", "clrsearch", "worker", name),
            *(["--device", device] if device else []),
            *(["--worker-name", worker, "--ends-with-parent"] if worker else []),
            *options,
        ),
        environment=url.environment(),
        name=worker or "",
    )


def require_room(url: StorageUrl, workers: int) -> None:
    """Refuse more workers than SQLite serves."""
    if url.file is not None and workers > SQLITE_WORKERS:
        raise StorageError(
            f"SQLite serves up to {SQLITE_WORKERS} workers, not {workers}: for more of them keep "
            "the study in PostgreSQL (--storage postgresql://USER@HOST/DATABASE)"
        )
