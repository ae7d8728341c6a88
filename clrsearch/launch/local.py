"""Workers as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO

from clrsearch.launch.launcher import Command, Ended


class LocalLauncher:
    """Starts each command as a child process; see :class:`Launcher`."""

    def __init__(self) -> None:
        self._started = 0
        self._children: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}

    def start(self, commands: Sequence[Command]) -> None:
        """Start them; what they print is dropped, what they complain of is kept."""
        for command in commands:
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child is reaped
            child = subprocess.Popen(
                command.arguments,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            self._children[self._started] = (child, errors)
            self._started += 1

    def poll(self) -> list[Ended]:
        """Those that have ended since the last call."""
        ended = []
        for index, (child, errors) in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip()
            errors.close()
            del self._children[index]
            ended.append(Ended(index=index, code=code, errors=text))
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
