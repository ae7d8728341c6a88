"""The launcher interfaces: a launcher knows a command line and an environment, nothing else."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

INTERPRETER = (sys.executable, "-P")
"""This Python, with no file in the current folder shadowing the standard library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A worker's command line, and environment variables to add to this process's own.

    If ``name`` is set, the worker's log is named after it.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker that has ended: its index among all workers started, exit code and last output.

    The code is negative if a signal ended it. ``log`` has all of its output.
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
    """Hands workers over to a scheduler, which monitors them itself."""

    def render(self, commands: Sequence[Command]) -> str:
        """What :meth:`submit` would run, verbatim, but without the environments."""

    def submit(self, commands: Sequence[Command]) -> str:
        """Submit the workers; returns a sentence on the outcome and where the logs are.

        All commands have the same environment.
        """


class Launcher(Protocol):
    """A group of workers that this process monitors."""

    def start(self, commands: Sequence[Command]) -> None:
        """Start workers, in addition to those started earlier."""

    def poll(self) -> list[Ended]:
        """The workers that have ended since the last call."""

    def running(self) -> int:
        """The number of workers not yet reported as ended."""

    def stop(self) -> None:
        """Ask all workers to shut down gracefully."""

    def kill(self) -> None:
        """Kill all workers immediately."""


def how_it_ended(code: int) -> str:
    """An exit code in words, with the number and name of the signal if it is negative."""
    if code >= 0:
        return f"exited with code {code}"
    names = {number.value: f" ({number.name})" for number in signal.Signals}
    return f"died of signal {-code}{names.get(-code, '')}"
