"""Work on studies, in this process or by starting workers.

Training code is imported lazily, so that commands that only list studies need not import torch.
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
"""The folder for the output of local workers, in a study's checkpoint folder."""
SQLITE_WORKERS = 32
"""Maximum number of workers per SQLite file: with 64, some timed out on its lock; with 32, none."""
IDLE_LOOK_SECONDS = 3.0  # polling interval of a worker without a slot


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
    """Work on a study in this process until no slot is left.

    See :func:`run` for the options not listed here.

    Args:
        name: the study.
        max_minutes: exit after this time as on SIGTERM: save a checkpoint and release the slot.
        max_trials: exit once this many trials have ended.
        idle_wait: how many seconds to wait for new slots when none is left.
        worker: the worker's name.
        ends_with_parent: exit when stdin is closed; a parent process holds its other end.
        on_end: called with each trial that has ended, and its study.
        on_wait: called with the cause of each database outage that is waited out.
        on_note: called with warnings, such as a checkpoint folder that other workers do not share.
        on_hang: called from another thread, with the reason, if a step never ends; it must end the
            process.

    Raises:
        StudyError: there is no such study, or the task's source or a package has changed since it
            was created.
        StudyStopped: the task's code failed repeatedly.
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
        """Work on the search, then on its confirmation; False if interrupted."""

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
        study = patience(lambda: Study.open(database, name))
        require_room(url, patience(study.slots.live) + 1)
        task = load_same(study, task_dir, data_dir, allow_drift=allow_drift).task
        make_run = run_maker(task, study.facts, chosen, study.plan.precision)
        while work_off(study, make_run):
            if not _wait_for_slots(study, idle_wait or 0.0, interruption, patience):
                return
            study = patience(study.reopen)


def _wait_for_slots(
    study: Study, seconds: float, interruption: Interruption, patience: Patience
) -> bool:
    """Wait until slots are added or left by a lost worker; returns whether that happened."""
    from clrsearch.training import Interrupted

    end = time.monotonic() + seconds
    with interruption.listening(), suppress(Interrupted):
        while (left := end - time.monotonic()) > 0:
            interruption.sleep(min(left, IDLE_LOOK_SECONDS))
            if patience(study.progress).free:
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
    """Run local workers until no slot is left; returns whether they were interrupted.

    Their output goes to the folder ``logs`` in ``checkpoints``, the study's checkpoint folder.
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
    """Work in this process on a study whose task exists only here, until no slot is left.

    Raises:
        StudyStopped: the task's code failed repeatedly.
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
    """Clear an earlier stop, so that workers can start."""
    for each in study.stages():
        each.stop(None)


def _tidy(study: Study, checkpoints: Path, patience: float) -> None:
    """Remove the confirmation's checkpoint folder if it is empty."""
    for each in Patience(patience)(study.stages)[1:]:
        with suppress(OSError, StorageError):  # not empty: trials will resume from it
            study_folder(checkpoints.parent, each.uuid).rmdir()


def require_limits(
    *, max_minutes: float | None, max_trials: int | None, idle_wait: float | None
) -> None:
    """Check that the limits of a worker are positive.

    Raises:
        PlanError: one is not; the message names it.
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
    """Command-line options of a worker."""
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
    """The command line of a worker; the database is passed only as an environment variable.

    Without a device or a name, the worker chooses its own. A worker with a name is a child of this
    process and ends with it.
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
    """Raise a StorageError if there are more workers than SQLite can serve."""
    if url.file is not None and workers > SQLITE_WORKERS:
        raise StorageError(
            f"SQLite serves up to {SQLITE_WORKERS} workers, not {workers}: for more of them keep "
            "the study in PostgreSQL (--storage postgresql://USER@HOST/DATABASE)"
        )
