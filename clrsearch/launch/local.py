"""Workers as processes of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clrsearch.errors import StorageError
from clrsearch.launch.launcher import Command, Ended

LOG_BYTES = 8_000_000  # of one worker's output are kept, or the latter half of so many
LAST_BYTES = 20_000  # of the output are looked at when a worker has ended
DROPPED = b"[what came before has been dropped]\n"


class LocalLauncher:
    """Starts each command as a child process; see :class:`Launcher`.

    A child's standard input is a pipe on which nothing is ever written: it ends with this process,
    however that ends. What it prints goes into a file of its own.
    """

    def __init__(self, logs: Path) -> None:
        """``logs`` is the folder for the files, which is there."""
        self._logs = logs
        self._started = 0
        self._children: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, commands: Sequence[Command]) -> None:
        """Start them.

        Raises:
            StorageError: their output cannot be written to the folder.
        """
        for command in commands:
            log = self._logs / f"{command.name.replace(':', '-') or self._started}.log"
            try:
                output = log.open("ab")
            except OSError as error:
                raise StorageError(
                    f"a worker's output cannot be written to {log}: {error.strerror}"
                ) from error
            with output:
                child = subprocess.Popen(
                    command.arguments,
                    env={**os.environ, **command.environment},
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                )
            self._children[self._started] = child, log
            self._started += 1

    def poll(self) -> list[Ended]:
        """Those that have ended since the last call."""
        ended = []
        for index, (child, log) in list(self._children.items()):
            _shorten(log)
            code = child.poll()
            if code is None:
                continue
            assert child.stdin is not None
            child.stdin.close()
            del self._children[index]
            ended.append(Ended(index=index, code=code, said=_last_words(log), log=log))
        return ended

    def running(self) -> int:
        """How many have not been reported as ended."""
        return len(self._children)

    def stop(self) -> None:
        """Ask all of them to leave in good order (SIGTERM)."""
        for child, _ in self._children.values():
            child.terminate()

    def kill(self) -> None:
        """End all of them at once (SIGKILL)."""
        for child, _ in self._children.values():
            child.kill()


def _shorten(log: Path) -> None:
    """Drop the first half of a file that has become too long; its writer appends to it.

    What is written meanwhile is moved as well, until there is no more of it.
    """
    try:
        if log.stat().st_size <= LOG_BYTES:
            return
        with log.open("r+b", buffering=0) as file:
            file.seek(-LOG_BYTES // 2, os.SEEK_END)
            moved = DROPPED + file.read().partition(b"\n")[2]
            read, written = file.tell(), 0
            while moved:
                file.seek(written)
                written += file.write(moved)
                file.seek(read)
                moved = file.read()
                read = file.tell()
            file.truncate(written)
    except FileNotFoundError:
        return  # somebody has cleaned up


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - LAST_BYTES, 0))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
