"""What is written to a tracker, and what a tracker has to be able to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from clrsearch.errors import TrackerError
from clrsearch.schedules import Value

STUDY = "study"
"""Key of the run that stands for the whole study."""
_CREDENTIALS = re.compile(r"(?<=://)\S*@")  # to the last @, as passwords may hold others and /
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Values at the end of an epoch, or of what lies between two validations; counted from 1."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A trial, or a whole study, as trackers know runs.

    Attributes:
        key: what identifies it in its study, such as ``trial-0007``; the same in every reading.
        name: its name for people.
        state: how it ended, as a slot state; ``running`` before.
        params: what it was run with.
        tags: what else is known from the start, such as its seed.
        points: its curves; a later reading has the same ones, and perhaps further ones.
        final: values that are known only at the end.
        texts: the contents of files, by name.
        started: when it began, in UTC; the time of its points, since theirs is not stored.
        ended: when it ended, in UTC; None while it runs.
    """

    key: str
    name: str
    state: str
    params: Mapping[str, Value]
    tags: Mapping[str, str]
    points: tuple[Point, ...] = field(repr=False)
    final: Mapping[str, float] = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)
    started: datetime
    ended: datetime | None

    @property
    def step(self) -> int:
        """The step of the last point; 0 without any."""
        return self.points[-1].step if self.points else 0

    @property
    def is_study(self) -> bool:
        """Whether it stands for the whole study."""
        return self.key == STUDY

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return self.state in ("failed", "diverged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """The study whose runs are written: its name, and what identifies it among all studies."""

    name: str
    uuid: str

    @property
    def short(self) -> str:
        """The first digits of ``uuid``, enough to tell studies of one name apart."""
        return self.uuid[:8]


class Tracker(Protocol):
    """The runs of one study in a tracker.

    All of it can be repeated: whatever is there already, from an earlier call or an earlier
    process that was killed at any point, is not written twice.
    """

    @property
    def place(self) -> str:
        """Where the runs are, for people; without passwords."""

    def ended(self) -> Collection[str]:
        """The keys of the runs that are there, from the first point to the end."""

    def update(self, run: Run) -> None:
        """Write what is not there yet of a run.

        Raises:
            TrackerError: it cannot be written.
        """

    def close(self) -> None:
        """Finish writing."""


Connect = Callable[[Mirrored, str | None], Tracker]
"""Opens a tracker for a study, in a place of the tracker's own kind, or in its usual one.

Raises:
    TrackerError: it cannot be reached or written.
"""


def safe(name: str) -> str:
    """A study's name, as projects and folders may be called: letters, digits and ``_.-``."""
    return _UNSAFE.sub("_", name)


def redacted(text: str) -> str:
    """A text without user names and passwords in the URLs in it."""
    return _CREDENTIALS.sub("***@", text)


@contextmanager
def told(tracker: str, *kinds: type[Exception]) -> Iterator[None]:
    """Translate the errors of a tracker's library.

    Raises:
        TrackerError: in one line.
    """
    try:
        yield
    except kinds as error:
        said = redacted(" ".join(str(error).split())) or type(error).__name__
        raise TrackerError(f"{tracker}: {said}") from error
