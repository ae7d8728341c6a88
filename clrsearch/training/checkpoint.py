"""Checkpoints: the state of a trial's run, written atomically and verified on load.

A file starts with three lines: a magic line, the SHA-256 of everything that follows, and the
identity of the trial as JSON. The rest is written by ``torch.save``. It goes straight to the disk
and comes straight from it, since there may be no room in memory for a copy of a large state.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import torch

from clrsearch.errors import StorageError, TaskError
from clrsearch.storage import make_folder
from clrsearch.training.run import Unrestorable, restoring

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SIGN = "worker-"  # prefix of a worker's marker file
_MAGIC = b"clrsearch checkpoint 1\n"
_PART = 1 << 18  # bytes written at a time; few enough to be hashed from the processor's cache


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
        draft = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with _told(path, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                _write(draft, identity, state)
                if not confirm():
                    return False
                if _is_folder(path):  # someone created it by hand
                    shutil.rmtree(path)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        return True

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
                if _is_folder(path):
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
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_Opened(path))
            magic, checksum, whose = (file.readline() for _ in range(3))
            file.begin_here()
            digest = hashlib.sha256(whose)
            hashlib.file_digest(file, lambda: digest)
            file.seek(0)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unrestorable(f"it cannot be read: {error.strerror}") from error
        if magic != _MAGIC:
            raise Unrestorable("it is damaged or was written by an earlier version of clrsearch")
        if magic + checksum != _head(digest.hexdigest()):
            raise Unrestorable("it is damaged (its checksum does not match)")
        with restoring():
            identity = Identity(**json.loads(whose))
        yield identity, file


class _Opened(io.BufferedReader):
    """A file whose positions can count from where the state begins.

    Not every version of torch gets the size right of a file that it is to read from the middle.
    """

    def __init__(self, path: Path) -> None:
        self._start = 0
        super().__init__(path.open("rb", buffering=0))

    def begin_here(self) -> None:
        """Count from the current position on."""
        self._start += self.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET:
            offset += self._start
        return super().seek(offset, whence) - self._start

    def tell(self) -> int:
        return super().tell() - self._start


class _Draft(io.FileIO):
    """A file that is being written, and the SHA-256 of what has been.

    ``error`` is the first error of the file system; ``torch.save`` may raise another in its place.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self.error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the first bytes of ``data``; returns how many, as any unbuffered file does."""
        part = memoryview(data)[:_PART]
        try:
            written = super().write(part)
        except OSError as error:
            self.error = self.error or error
            raise
        self.digest.update(part[:written])
        return written


def _write(draft: Path, identity: Identity, state: Mapping[str, Any]) -> None:
    """Write a whole checkpoint to the disk; its first two lines, which need the checksum, last."""
    with _Draft(draft) as raw, io.BufferedWriter(raw, _PART) as file:
        file.seek(len(_head(raw.digest.hexdigest())))
        file.write(json.dumps(asdict(identity)).encode() + b"\n")
        try:
            torch.save(dict(state), file)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TaskError(f"the training state cannot be saved: {error}") from error
        except RuntimeError:
            if raw.error is not None:
                raise raw.error from None
            raise
        file.flush()
        head = _head(raw.digest.hexdigest())
        file.seek(0)
        file.write(head)
        file.flush()
        os.fsync(raw.fileno())


def _head(checksum: str) -> bytes:
    """The first two lines of a checkpoint, always of the same length."""
    return _MAGIC + f"{checksum}\n".encode()


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


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _sign(worker: str) -> str:
    return f"{_SIGN}{quote(worker, safe='')}"
