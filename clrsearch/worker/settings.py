"""How a worker works, as one value: in Python, and on its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clrsearch.errors import PlanError
from clrsearch.storage import PATIENCE_SECONDS

TRUNK_GB = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of a worker.

    Attributes:
        device: the device to train on, such as ``"cuda:1"``; by default the first one there is.
        task_dir: folder of the task's files, by default the current one.
        data_dir: folder of the task's data.
        checkpoint_dir: folder of the checkpoints of all studies.
        checkpoint_seconds: minimum time between two checkpoints of a trial.
        storage_patience: how many seconds to wait out a database outage.
        stall_minutes: exit if no step of the task has ended for so long; by default ten times the
            longest one so far, at least ten minutes.
        allow_drift: work even if the task's source, clrsearch or torch has changed since the study
            was created.
        max_minutes: exit after this time as on SIGTERM: save a checkpoint and release the slot.
        max_trials: exit once this many trials have ended.
        idle_wait: how many seconds to wait for new slots when none is left.
        gpus_per_trial: number of GPUs that train one trial together, a process on each.
        lanes: number of trials that are trained together in one process; ``"auto"`` finds it out,
            and ``"off"`` is one. By default ``"auto"`` on a GPU, and otherwise ``"off"``.
        trunk_gb: how many gigabytes a study may take on disk for the states that its trials with
            the same beginning share; 0 to train each from its start.
        crew: number of workers that were started together, among whom the trials are divided.
    """

    device: str | None = None
    task_dir: Path | None = None
    data_dir: Path | None = None
    checkpoint_dir: Path | None = None
    checkpoint_seconds: float = 10.0
    storage_patience: float = PATIENCE_SECONDS
    stall_minutes: float | None = None
    allow_drift: bool = False
    max_minutes: float | None = None
    max_trials: int | None = None
    idle_wait: float | None = None
    gpus_per_trial: int = 1
    lanes: Literal["auto", "off"] | int | None = None
    trunk_gb: float = TRUNK_GB
    crew: int = 1

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            PlanError: one is not positive, or they exclude each other; the message names them.
        """
        if isinstance(self.lanes, int) and self.lanes < 1:
            raise PlanError(f"lanes must be auto, off or at least 1, not {self.lanes}")
        if self.gpus_per_trial > 1 and self.lanes not in (None, "off"):
            raise PlanError("give either --gpus-per-trial or --lanes, not both")
        for name in ("stall_minutes", "max_minutes", "max_trials", "idle_wait", "gpus_per_trial"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise PlanError(f"{name} must be above 0, not {limit:g}")

    @property
    def may_choose_lanes(self) -> bool:
        """Whether the number of lanes is left to the worker, as far as is known."""
        by_itself = self.device != "cpu" and self.gpus_per_trial == 1
        return self.lanes == "auto" or (self.lanes is None and by_itself)

    @property
    def stall_seconds(self) -> float | None:
        """``stall_minutes`` in seconds."""
        return None if self.stall_minutes is None else 60 * self.stall_minutes

    def to_arguments(self) -> list[str]:
        """The options of ``clrsearch worker`` that give a worker these settings."""
        given: dict[str, object] = {
            "--device": self.device,
            "--task-dir": self.task_dir,
            "--data-dir": self.data_dir,
            "--checkpoint-dir": self.checkpoint_dir,
            "--checkpoint-seconds": f"{self.checkpoint_seconds:g}",
            "--storage-patience": f"{self.storage_patience:g}",
            "--stall-minutes": self.stall_minutes,
            "--max-minutes": self.max_minutes,
            "--max-trials": self.max_trials,
            "--idle-wait": self.idle_wait,
            "--gpus-per-trial": None if self.gpus_per_trial == 1 else self.gpus_per_trial,
            "--lanes": self.lanes,
            "--trunk-gb": None if self.trunk_gb == TRUNK_GB else self.trunk_gb,
            "--crew": self.crew if self.crew > 1 and self.may_choose_lanes else None,
        }
        options = [text for pair in given.items() if pair[1] is not None for text in pair]
        return [*map(str, options), *(["--allow-drift"] if self.allow_drift else [])]
