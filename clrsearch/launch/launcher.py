"""What starts workers: a launcher knows a command line and an environment, nothing else of ours."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

INTERPRETER = (sys.executable, "-P")
"""This Python, with no file of the current folder in front of the standard library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One worker's command line, with what its environment has besides this process's own."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker that has ended: its place among all that were started, exit code, error output.

    The code is negative where a signal ended it.
    """

    index: int
    code: int
    errors: str


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
