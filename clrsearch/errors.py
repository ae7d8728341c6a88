"""Exceptions, one class per kind of error that a caller may want to catch.

ClrsearchError
├── PlanError            a study file or an option is not valid
├── ScheduleError        a schedule has an invalid value
├── TaskError            a task does not load or breaks its contract
│   └── TaskRaised       the task's own code raised; carries the traceback
│       └── RanksApart   it raised in one process of a group, and not in the others
├── StorageError         the database cannot be reached, read or written
├── StudyError           a study or trial is unknown, or not in the state the call needs
│   └── PlanMismatch     a study of this name exists with another plan, task or version
├── TrackerError         a tracker is unknown, not installed, or cannot be reached or written
├── StudyStopped         the task failed repeatedly, so every worker exited
├── RankLost             another process of the group was lost, so this one left
└── FailsHere            trials kept failing in one process, or on one machine, so it left
    ├── OutOfMemory      its device or machine had no memory left, so it left
    └── DeviceFailed     its device failed, so it left
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the commands that train."""

    DONE = 0
    INCOMPLETE = 1
    """The study has ended without a result, or with trials that failed for good."""
    ERROR = 2
    """An error that would occur in any other process too."""
    STOPPED = 3
    """The study was stopped because its task fails repeatedly."""
    FAILS_HERE = 4
    """Trials kept failing here; a fresh process, or another machine, may do better."""
    HUNG = 5
    """The task made no progress for too long, so its process was ended."""
    OUT_OF_MEMORY = 6
    """The device or the machine had no memory left; with fewer workers on it, there may be."""
    DEVICE_FAILED = 7
    """The device failed; a fresh process, or another device, may do better."""
    RANK_LOST = 8
    """Another process of the same group was lost; a fresh group may do better."""
    INTERRUPTED = 130


class ClrsearchError(Exception):
    """Base class of all errors that this package raises deliberately."""

    exit_code = ExitCode.ERROR


class PlanError(ClrsearchError):
    """A study file or an option is not valid; the message names the key."""


class ScheduleError(ClrsearchError, ValueError):
    """A schedule has an invalid value; the message names the field."""


class TaskError(ClrsearchError):
    """A task does not load, or breaks the contract of :class:`clrsearch.Task`."""


class TaskRaised(TaskError):
    """The task's own code raised; ``traceback`` is the text, starting at the task's first frame."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


class RanksApart(TaskRaised):
    """The task's code raised in one process of a group, which cannot go on after that."""


class StorageError(ClrsearchError):
    """The database cannot be reached, read or written; the message names the real cause."""


class StudyError(ClrsearchError):
    """A study or trial is unknown, or not in the state that the call needs."""


class PlanMismatch(StudyError):
    """A study of this name exists with another plan, task or version; the message names it."""


class TrackerError(ClrsearchError):
    """A tracker is unknown or not installed, or cannot be reached or written."""


class StudyStopped(ClrsearchError):
    """The task failed repeatedly; ``traceback`` is that of the last failure."""

    exit_code = ExitCode.STOPPED

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


class RankLost(ClrsearchError):
    """Another process of the group was lost, and the trial with it, until it is resumed."""

    exit_code = ExitCode.RANK_LOST


class FailsHere(ClrsearchError):
    """Trials kept failing in one process, or on one machine; others may be healthy."""

    exit_code = ExitCode.FAILS_HERE


class OutOfMemory(FailsHere):
    """A trial found no memory left on the device or the machine, which others may be using."""

    exit_code = ExitCode.OUT_OF_MEMORY


class DeviceFailed(FailsHere):
    """A trial met an error of its device, after which a process cannot use it any more."""

    exit_code = ExitCode.DEVICE_FAILED
