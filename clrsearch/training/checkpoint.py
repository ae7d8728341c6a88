"""Checkpoints: the state of each trial's run, in a folder that the study's workers share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import torch

from clrsearch.errors import StorageError
from clrsearch.storage import make_folder
from clrsearch.training.run import Unrestorable, restoring
from clrsearch.training.state_file import is_folder, open_state, save_state

_SIGN = "worker-"  # prefix of a worker's marker file


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Identifies a checkpoint: the study's UUID and the trial's number, family and parameters.

    ``attempt`` is the attempt that wrote the checkpoint or that is about to resume from it.
    """

    study: str
    trial: int
    family: str
    params: Mapping[str, float | int | str | bool]
    attempt: int

    def require(self, found: Identity) -> None:
        """Reject a checkpoint that was not written by an earlier attempt at the same trial.

        Raises:
            Unrestorable: it belongs to another trial or attempt; the message says which.
        """
        for key in ("study", "trial", "family", "params"):
            if (there := getattr(found, key)) != getattr(self, key):
                raise Unrestorable(f"it belongs to another trial ({key}: {there})")
        if found.attempt >= self.attempt:
            raise Unrestorable(
                f"it is from attempt {found.attempt}, but this is attempt {self.attempt}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """The trials that are running or waiting to be resumed, and the workers that hold slots."""

    trials: Collection[int]
    workers: Collection[str]


class Checkpoints:
    """The checkpoints of a study's trials: one file per trial in a folder.

    Raises:
        StorageError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)

    def save(
        self, identity: Identity, state: Mapping[str, Any], *, confirm: Callable[[], bool]
    ) -> bool:
        """Write the trial's checkpoint to a temporary file, then rename it into place.

        The rename happens only if ``confirm`` returns true; returns whether it did. If the folder
        has been deleted, it is recreated.

        Raises:
            StorageError: the disk is full, or another file-system error occurred.
            TaskError: the state contains something that cannot be pickled.
        """
        path = self.path(identity.trial)
        with _told(path, "written"):
            return save_state(path, asdict(identity), state, confirm=confirm)

    def load(self, identity: Identity) -> dict[str, Any] | None:
        """The state in the trial's checkpoint, on the CPU, or None if there is no file.

        What is restored copies it to where it belongs: an optimizer keeps some of it on the CPU.

        Raises:
            Unrestorable: the file is damaged, or was not written by an earlier attempt at this
                trial.
        """
        try:
            with open_checkpoint(self.path(identity.trial)) as (found, content), restoring():
                identity.require(found)
                return dict(torch.load(content, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            return None

    def remove(self, trial: int) -> None:
        """Delete the trial's checkpoint and any temporary files left behind by killed workers."""
        with _told(self.path(trial), "removed"):
            for path in self.folder.glob(f"trial-{trial:d}.*"):
                if is_folder(path):
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def sign(self, worker: str) -> None:
        """Create a marker file that shows other workers that this one uses the same folder."""
        path = self.folder / _sign(worker)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def unsign(self, worker: str) -> None:
        """Delete the worker's marker file; a leftover one does no harm."""
        with suppress(OSError):
            (self.folder / _sign(worker)).unlink()

    def unsigned(self, workers: Collection[str]) -> set[str]:
        """The workers without a marker file here: they write their checkpoints elsewhere."""
        here = {path.name for path in self.folder.glob(f"{_SIGN}*")}
        return {worker for worker in workers if _sign(worker) not in here}

    def path(self, trial: int) -> Path:
        """The path of the trial's checkpoint."""
        return checkpoint_path(self.folder, trial)


def checkpoint_path(folder: Path, trial: int) -> Path:
    """The path of a trial's checkpoint in its study's folder."""
    return folder / f"trial-{trial:d}.pt"


@contextmanager
def open_checkpoint(path: Path) -> Iterator[tuple[Identity, BinaryIO]]:
    """The identity in a checkpoint file and its state for ``torch.load``; verifies the checksum.

    Raises:
        FileNotFoundError: there is no such file.
        Unrestorable: the file cannot be read, or is damaged.
    """
    with open_state(path) as (whose, content):
        with restoring():
            identity = Identity(**whose)
        yield identity, content


def needless(folder: Path, needed: Callable[[], Needed]) -> list[Path]:
    """The files in a study's folder that none of the needed trials and workers own.

    ``needed`` is called after the folder has been listed, so files of newer trials are not
    included.
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


@contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    """Name the checkpoint in errors of the file system, and what was not ``done`` to it."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"the checkpoint {path} cannot be {done}: {error.strerror}") from error


def _sign(worker: str) -> str:
    return f"{_SIGN}{quote(worker, safe='')}"
