"""What starts workers: a launcher knows a command line and an environment, nothing else of ours."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

INTERPRETER = (sys.executable, "-P")
"""This Python, with no file of the current folder in front of the standard library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One worker's command line, with what its environment has besides this process's own.

    A log of its output is called as the worker, where that has a ``name``.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker that has ended: its place among all that were started, exit code, last output.

    The code is negative where a signal ended it. All of its output is in ``log``.
    """

    index: int
    code: int
    said: str
    log: Path

    @property
    def how(self) -> str:
        """How it ended, in words."""
        return how_it_ended(self.code)


class Submitter(Protocol):
    """Hands workers to a scheduler, which watches over them itself."""

    def render(self, commands: Sequence[Command]) -> str:
        """What :meth:`submit` would run, word for word; environments are no part of it."""

    def submit(self, commands: Sequence[Command]) -> str:
        """Run it; the sentence that says what became of it, and where its logs are.

        All commands have the same environment.
        """


class Launcher(Protocol):
    """A group of workers that are watched over from here."""

    def start(self, commands: Sequence[Command]) -> None:
        """Start them, besides those that were started earlier."""

    def poll(self) -> list[Ended]:
        """Those that have ended since the last call."""

    def running(self) -> int:
        """How many have not been reported as ended."""

    def stop(self) -> None:
        """Ask all of them to leave in good order."""

    def kill(self) -> None:
        """End all of them at once."""


def how_it_ended(code: int) -> str:
    """An exit code in words, by number and name: below 0 a signal ended the process."""
    if code >= 0:
        return f"ended with code {code}"
    names = {number.value: f" ({number.name})" for number in signal.Signals}
    return f"died of signal {-code}{names.get(-code, '')}"
