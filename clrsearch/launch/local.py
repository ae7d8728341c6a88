"""Workers as local processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clrsearch.errors import StorageError
from clrsearch.launch.launcher import Command, Ended

LOG_BYTES = 8_000_000  # a worker's log beyond this size is cut to half of it
LAST_BYTES = 20_000  # read from the end of the log when a worker has ended
DROPPED = b"[what came before has been dropped]\n"


class LocalLauncher:
    """Starts each command as a child process; see :class:`Launcher`.

    A child's standard input is a pipe that is never written to, so that the child ends with this
    process, however that ends. Its output goes to a log file of its own.
    """

    def __init__(self, logs: Path) -> None:
        """``logs`` is the folder for the log files; it must exist."""
        self._logs = logs
        self._started = 0
        self._children: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, commands: Sequence[Command]) -> None:
        """Start one process per command.

        Raises:
            StorageError: a log file cannot be written to the folder.
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
        """The workers that have ended since the last call."""
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
        """The number of workers not yet reported as ended."""
        return len(self._children)

    def stop(self) -> None:
        """Ask all workers to shut down gracefully (SIGTERM)."""
        for child, _ in self._children.values():
            child.terminate()

    def kill(self) -> None:
        """Kill all workers immediately (SIGKILL)."""
        for child, _ in self._children.values():
            child.kill()


def _shorten(log: Path) -> None:
    """Drop the beginning of a log that has grown too long, while its writer appends to it.

    Output written in the meantime is moved too, until there is no more of it; only what is written
    between the last look and the cut is lost.
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
        return  # someone deleted it


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - LAST_BYTES, 0))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
