"""Checkpoints: the state of a run in a file, whole and of one trial, or of no use.

A file begins with three lines: what it is; the SHA-256 of all that follows; whose it is, as JSON.
The rest is what ``torch.save`` writes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from clrsearch.errors import StorageError, TaskError
from clrsearch.storage import make_folder
from clrsearch.training.run import Unrestorable, restoring

_SIGN = "worker-"  # in front of a worker's name
_MAGIC = b"clrsearch checkpoint 1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose checkpoint it is: a study's UUID, a trial's number, family and parameters.

    ``attempt`` is the one that wrote it, or that is about to go on from it.
    """

    study: str
    trial: int
    family: str
    params: Mapping[str, float | int | str | bool]
    attempt: int

    def require(self, found: Identity) -> None:
        """Refuse a checkpoint that is not of an earlier attempt at the same trial.

        Raises:
            Unrestorable: saying whose it is instead.
        """
        for key in ("study", "trial", "family", "params"):
            if (there := getattr(found, key)) != getattr(self, key):
                raise Unrestorable(f"it belongs to another trial ({key}: {there})")
        if found.attempt >= self.attempt:
            raise Unrestorable(
                f"it is of attempt {found.attempt}, and this is attempt {self.attempt}"
            )


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
        make_folder(folder)

    def save(
        self, identity: Identity, state: Mapping[str, Any], *, confirm: Callable[[], bool]
    ) -> bool:
        """Replace the trial's checkpoint: the file is written elsewhere first, then renamed.

        It is renamed only where ``confirm`` then allows it; whether it was. A folder that somebody
        has removed is made anew.

        Raises:
            StorageError: the disk is full, or another error of the file system.
            TaskError: the state has something in it that cannot be pickled.
        """
        buffer = io.BytesIO()  # torch.save to a full disk raises no OSError
        try:
            torch.save(dict(state), buffer)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TaskError(f"what a run consists of cannot be saved: {error}") from error
        path = self.path(identity.trial)
        draft = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    file.writelines(_sealed(identity, buffer.getbuffer()))
                    file.flush()
                    os.fsync(file.fileno())
                if not confirm():
                    return False
                if _is_folder(path):  # which was put there by hand
                    shutil.rmtree(path)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"the checkpoint {path} cannot be written: {error.strerror}"
            ) from error
        return True

    def load(self, identity: Identity, device: torch.device) -> dict[str, Any] | None:
        """The state in the trial's checkpoint; None where there is no file.

        Raises:
            Unrestorable: the file is damaged, or not of an earlier attempt at this trial.
        """
        try:
            found, content = read_checkpoint(self.path(identity.trial))
        except FileNotFoundError:
            return None
        with restoring():
            identity.require(found)
            state = torch.load(content, map_location=device, weights_only=True)
            return dict(state)

    def remove(self, trial: int) -> None:
        """Remove the trial's checkpoint, and the drafts of those who were killed at it."""
        try:
            for path in self.folder.glob(f"trial-{trial:d}.*"):
                if _is_folder(path):
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"the checkpoint {self.path(trial)} cannot be removed: {error.strerror}"
            ) from error

    def sign(self, worker: str) -> None:
        """Leave a file that shows others that this worker has the same folder."""
        path = self.folder / _sign(worker)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
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

    def path(self, trial: int) -> Path:
        """Where the trial's checkpoint lies."""
        return checkpoint_path(self.folder, trial)


def checkpoint_path(folder: Path, trial: int) -> Path:
    """Where the checkpoint of a trial lies in its study's folder."""
    return folder / f"trial-{trial:d}.pt"


def read_checkpoint(path: Path) -> tuple[Identity, io.BytesIO]:
    """Whose checkpoint a file is, and what ``torch.load`` takes; its checksum has been compared.

    Raises:
        FileNotFoundError: there is none.
        Unrestorable: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            magic, checksum, whose, state = *(file.readline() for _ in range(3)), file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unrestorable(f"it cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise Unrestorable("it is damaged, or written by an earlier version of clrsearch")
    if checksum != _checksum(whose, state):
        raise Unrestorable("it is damaged (its checksum does not match)")
    with restoring():
        return Identity(**json.loads(whose)), io.BytesIO(state)


def _sealed(identity: Identity, state: memoryview) -> tuple[bytes | memoryview, ...]:
    """The parts of a file."""
    whose = json.dumps(asdict(identity)).encode() + b"\n"
    return _MAGIC, _checksum(whose, state), whose, state


def _checksum(*parts: bytes | memoryview) -> bytes:
    """The line with the checksum of what follows it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return f"{digest.hexdigest()}\n".encode()


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


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _sign(worker: str) -> str:
    return f"{_SIGN}{quote(worker, safe='')}"
