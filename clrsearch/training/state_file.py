"""Files with the state of a run: written whole or not at all, and verified when they are opened.

A file starts with three lines: a magic line, the SHA-256 of everything that follows, and whose it
is as JSON. The rest is written by ``torch.save``. It goes straight to the disk and comes straight
from it, since there may be no room in memory for a copy of a large state.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from clrsearch.errors import TaskError
from clrsearch.training.run import Unrestorable, restoring

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_MAGIC = b"clrsearch checkpoint 1\n"
_PART = 1 << 18  # bytes written at a time; few enough to be hashed from the processor's cache


def save_state(
    path: Path,
    whose: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    confirm: Callable[[], bool] = lambda: True,
) -> bool:
    """Write a state to a temporary file, then rename it into place.

    The rename happens only if ``confirm`` returns true; returns whether it did. If the folder has
    been deleted, it is recreated.

    Raises:
        OSError: the disk is full, or another file-system error occurred.
        TaskError: the state contains something that cannot be pickled.
    """
    draft = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(draft, whose, state)
        if not confirm():
            return False
        if is_folder(path):  # someone created it by hand
            shutil.rmtree(path)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


def is_folder(path: Path) -> bool:
    """Whether there is a folder itself, no link to one."""
    return path.is_dir() and not path.is_symlink()


@contextmanager
def open_state(path: Path) -> Iterator[tuple[dict[str, Any], BinaryIO]]:
    """Whose a file is, and its state for ``torch.load``; verifies the checksum.

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
            owner = dict(json.loads(whose))
        yield owner, file


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


def _write(path: Path, whose: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a whole file to the disk; its first two lines, which need the checksum, last."""
    with _Draft(path) as raw, io.BufferedWriter(raw, _PART) as file:
        file.seek(len(_head(raw.digest.hexdigest())))
        file.write(json.dumps(dict(whose)).encode() + b"\n")
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
    """The first two lines of a file, always of the same length."""
    return _MAGIC + f"{checksum}\n".encode()
