"""Checkpoints: the state of a run in a file, whole or not there at all."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from clrsearch.errors import StorageError


class Checkpoints:
    """The checkpoints of one study's trials in a folder, one file per trial.

    Raises:
        StorageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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
        """
        buffer = io.BytesIO()  # torch.save to a full disk raises no OSError
        torch.save(dict(state), buffer)
        path = self._path(trial)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
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
            for path in self._folder.glob(f"trial-{trial}.*"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"the checkpoint {self._path(trial)} cannot be removed: {error.strerror}"
            ) from error

    def keep(self, trials: Sequence[int]) -> None:
        """Remove the checkpoints of all other trials; nobody minds what cannot be removed."""
        kept = {self._path(trial).stem for trial in trials}
        for path in self._folder.glob("trial-*"):
            if path.name.partition(".")[0] not in kept:
                with suppress(OSError):
                    path.unlink()

    def _path(self, trial: int) -> Path:
        return self._folder / f"trial-{trial}.pt"
