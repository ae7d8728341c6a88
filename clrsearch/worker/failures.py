"""Whom failures speak against: the task, or the process and the machine that met them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clrsearch.causes import cause
from clrsearch.errors import TaskError, TaskRaised
from clrsearch.search import Record
from clrsearch.storage import host_of

OWN_FAILURES = 2  # in a row, and a worker leaves
FAILURES = 3  # in a row, with no trial complete, stop the study: more than one worker meets


def reason_to_leave(failures: Sequence[TaskError]) -> str | None:
    """Why a process should leave whose latest trials ended with these errors; None if it stays."""
    if len(failures) < OWN_FAILURES:
        return None
    last = cause(told(failures[-1]))
    return f"{len(failures)} trials in a row failed in this process, the last with {last}"


def told(error: TaskError) -> str:
    """What an error has to tell: the task's own traceback, or what is wrong with the task."""
    return (isinstance(error, TaskRaised) and error.traceback) or str(error)


def keeps_failing(records: Sequence[Record], live: Iterable[str]) -> bool:
    """Whether the task is to blame: no trial is complete and the latest to end all failed.

    Not while one of the ``live`` workers is on a machine on which nothing has failed.
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
