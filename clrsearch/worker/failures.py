"""Whom to blame for failures: the task, or the process and its machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clrsearch.causes import cause
from clrsearch.errors import TaskError, TaskRaised
from clrsearch.search import Record
from clrsearch.storage import host_of

OWN_FAILURES = 2  # consecutive failures after which a worker leaves
FAILURES = 3  # consecutive failures, with no complete trial, that stop the study


def reason_to_leave(failures: Sequence[TaskError]) -> str | None:
    """Why a process whose latest trials failed with these errors should leave; None if it stays."""
    if len(failures) < OWN_FAILURES:
        return None
    last = cause(told(failures[-1]))
    return f"{len(failures)} trials in a row failed in this process, the last with {last}"


def told(error: TaskError) -> str:
    """The task's own traceback, or the message if the task itself is at fault."""
    return (isinstance(error, TaskRaised) and error.traceback) or str(error)


def keeps_failing(records: Sequence[Record], live: Iterable[str]) -> bool:
    """Whether the task is to blame: no trial is complete and the latest to end all failed.

    False as long as one of the ``live`` workers is on a machine without failures.
    """
    ended = sorted((each.ended, each.number, each) for each in records if each.ended is not None)
    latest = [record for _, _, record in ended[-FAILURES:]]
    sick = {host_of(record.worker) for record in records if record.state == "failed"}
    return (
        len(latest) == FAILURES
        and all(record.state == "failed" for record in latest)
        and all(record.state != "complete" for record in records)
        and all(host_of(worker) in sick for worker in live)
    )
