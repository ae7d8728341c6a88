"""Checkpoints: the state of a run in a file, whole or not there at all."""

from __future__ import annotations

import io
import os
import pickle
import secrets
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from clrsearch.errors import StorageError, TaskError

_SIGN = "worker-"  # in front of a worker's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """The trials that run, or wait to be resumed, and the workers that hold slots."""

    trials: Collection[int]
    workers: Collection[str]


class Checkpoints:
    """The checkpoints of one study's trials in a folder, one file per trial.

    Raises:
        StorageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StorageError(
                f"the checkpoint folder {folder} cannot be written to: {error.strerror}; "
                "--checkpoint-dir names another"
            ) from error

    def save(self, trial: int, state: Mapping[str, Any], *, confirm: Callable[[], bool]) -> bool:
        """Replace the trial's checkpoint: the file is written elsewhere first, then renamed.

        It is renamed only where ``confirm`` then allows it; whether it was.

        Raises:
            StorageError: the disk is full, or another error of the file system.
            TaskError: the state has something in it that cannot be pickled.
        """
        buffer = io.BytesIO()  # torch.save to a full disk raises no OSError
        try:
            torch.save(dict(state), buffer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TaskError(f"what a run consists of cannot be saved: {error}") from error
        path = self._path(trial)
        draft = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        try:
            try:
                with draft.open("wb") as file:
                    file.write(buffer.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                if not confirm():
                    return False
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"the checkpoint {path} cannot be written: {error.strerror}"
            ) from error
        return True

    def load(self, trial: int, device: torch.device) -> dict[str, Any] | None:
        """The state in the trial's checkpoint; None where there is none that can be read."""
        try:
            state = torch.load(self._path(trial), map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        return state if isinstance(state, dict) else None

    def remove(self, trial: int) -> None:
        """Remove the trial's checkpoint, and the drafts of those who were killed at it."""
        try:
            for path in self.folder.glob(f"trial-{trial}.*"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"the checkpoint {self._path(trial)} cannot be removed: {error.strerror}"
            ) from error

    def sign(self, worker: str) -> None:
        """Leave a file that shows others that this worker has the same folder."""
        path = self.folder / _sign(worker)
        try:
            path.touch()
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def unsign(self, worker: str) -> None:
        """Take the worker's file away; nobody minds one that stays."""
        with suppress(OSError):
            (self.folder / _sign(worker)).unlink()

    def unsigned(self, workers: Collection[str]) -> set[str]:
        """The workers whose file is not here: they write their checkpoints elsewhere."""
        here = {path.name for path in self.folder.glob(f"{_SIGN}*")}
        return {worker for worker in workers if _sign(worker) not in here}

    def _path(self, trial: int) -> Path:
        return self.folder / f"trial-{trial}.pt"


def needless(folder: Path, needed: Callable[[], Needed]) -> list[Path]:
    """The files in a study's folder that are of none of its running trials and their workers.

    ``needed`` is called when the folder has been looked at: what begins meanwhile is not listed.
    """
    files = sorted((*folder.glob("trial-*"), *folder.glob(f"{_SIGN}*")))
    wanted = needed()
    signs = {_sign(worker) for worker in wanted.workers}
    trials = {f"trial-{trial}" for trial in wanted.trials}
    return [
        path
        for path in files
        if path.name not in signs and path.name.partition(".")[0] not in trials
    ]


def _sign(worker: str) -> str:
    return f"{_SIGN}{quote(worker, safe='')}"
