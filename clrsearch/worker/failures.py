"""Whom to blame for failures: the task, or the process, its device and its machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch

from clrsearch.causes import cause
from clrsearch.errors import DeviceFailed, FailsHere, OutOfMemory, RanksApart, TaskError, TaskRaised
from clrsearch.search import Record
from clrsearch.storage import host_of

OWN_FAILURES = 2  # consecutive failures after which a worker leaves
FAILURES = 3  # consecutive failures, with no complete trial, that stop the study

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
_DEVICE = re.compile(r"\b(?:CUDA|HIP|cuDNN|CUBLAS|NCCL) error", re.IGNORECASE)


def device_failure(error: Exception) -> FailsHere | None:
    """Why the process must leave though its task may be in order: no memory, or a failed device.

    None for all other errors. After an error of a CUDA device no call to it works in that process.
    """
    for each in _chain(error):
        said = cause(told(error) if isinstance(error, TaskError) else _said(error))
        if isinstance(each, MemoryError | torch.OutOfMemoryError) or (
            isinstance(each, RuntimeError) and _NO_MEMORY.search(str(each))
        ):
            return OutOfMemory(f"no memory was left: {said}")
        if isinstance(each, torch.AcceleratorError) or (
            isinstance(each, RuntimeError) and _DEVICE.search(str(each))
        ):
            return DeviceFailed(f"the device failed: {said}")
    return None


def _said(error: Exception) -> str:
    """An error's type and message."""
    return f"{type(error).__name__}: {error}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that caused it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def reason_to_leave(failures: Sequence[TaskError]) -> str | None:
    """Why a process whose latest trials failed with these errors should leave; None if it stays."""
    if failures and isinstance(failures[-1], RanksApart):
        last = cause(told(failures[-1]))
        return f"a trial failed in one process of the group alone, with {last}"
    if len(failures) < OWN_FAILURES:
        return None
    last = cause(told(failures[-1]))
    return f"{len(failures)} trials in a row failed in this process, the last with {last}"


def without_frames(error: TaskError) -> TaskError:
    """The error without the frames it came through, which hold a trial's model in memory."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def told(error: TaskError) -> str:
    """The task's own traceback, or the message if the task itself is at fault."""
    return (isinstance(error, TaskRaised) and error.traceback) or str(error)


def keeps_failing(records: Sequence[Record], live: Sequence[str]) -> bool:
    """Whether the task is to blame: no trial is complete and the latest to end all failed.

    False as long as one of the ``live`` workers is on a machine, or on a device of it, without
    failures.
    """
    ended = sorted((each.ended, each.number, each) for each in records if each.ended is not None)
    latest = [record for _, _, record in ended[-FAILURES:]]
    failed = {_place(record) for record in records if record.state == "failed"}
    hosts = {host for host, _ in failed}
    at_work = {each.worker: _place(each) for each in records if each.state == "running"}
    return (
        len(latest) == FAILURES
        and all(record.state == "failed" for record in latest)
        and all(record.state != "complete" for record in records)
        and all(
            at_work[worker] in failed if worker in at_work else host_of(worker) in hosts
            for worker in live
        )
    )


def _place(record: Record) -> tuple[str, str]:
    """The machine and the device of it that a trial was trained on."""
    return host_of(record.worker), record.device
