"""The processes of a group that trains one trial, started by torch's own elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from clrsearch.errors import ExitCode
from clrsearch.launch.launcher import Command

HERE = "127.0.0.1"
STOP_SECONDS = 30  # for the others to leave, once a process has
ASKING = ("SIGINT", "SIGTERM", "SIGUSR2", "SIGHUP")


def run_ranks(command: Command, ranks: int, *, ends_with_parent: bool) -> int:
    """Run so many processes of a command as a group; returns the group's exit code.

    It is negative for a signal. Each process finds its place in RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR and MASTER_PORT. When one of them is lost, the others are ended.

    Their standard input is a pipe that is closed when they are to leave in order: at a signal, or
    with ``ends_with_parent`` when this process's own standard input is closed. A second Ctrl-C ends
    them at once. Call this from the main thread of a process that does nothing else.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.update(command.environment)
    logging.disable(logging.ERROR)  # the launcher's own words; the processes have theirs
    with tempfile.TemporaryDirectory(prefix="clrsearch-") as folder, _asking(ends_with_parent):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HERE}:0",
            local_addr=HERE,
            max_restarts=0,
            signals_to_handle="SIGQUIT",  # the others are handled here
            shutdown_timeout=STOP_SECONDS,
        )
        program, *arguments = command.arguments
        try:
            elastic_launch(config, program)(*arguments)
        except ChildFailedError as error:
            return group_code({rank: each.exitcode for rank, each in error.failures.items()})
        except SignalException:  # a second Ctrl-C
            return ExitCode.INTERRUPTED
    return ExitCode.DONE


def group_code(codes: Mapping[int, int]) -> int:
    """The exit code of a group by those of its processes that failed.

    It is that of the first process which had a reason of its own to leave.
    """
    own = {rank: code for rank, code in codes.items() if code != ExitCode.RANK_LOST}
    asked = {rank: code for rank, code in own.items() if code != -signal.SIGTERM}
    found = asked or own or codes
    return found[min(found)]


def end_as(code: int) -> None:
    """End this process by the signal that a negative exit code stands for; else do nothing."""
    if code < 0:
        with suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)


@contextmanager
def _asking(ends_with_parent: bool) -> Iterator[None]:
    """Give children a standard input that is closed when they are to leave."""
    from torch.distributed.elastic.multiprocessing import SignalException

    lifeline = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    lock, told = threading.Lock(), [False, False]

    def ask() -> None:
        with lock:
            if not told[0]:
                told[0] = True
                os.close(writing)

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if told[1]:
                raise SignalException("ended at once", sigval=signal.SIGKILL)
            told[1] = True
        threading.Thread(target=ask).start()  # this one may hold the lock

    def wait() -> None:
        while os.read(lifeline, 1024):
            pass
        ask()

    if ends_with_parent:
        threading.Thread(target=wait, name="parent", daemon=True).start()
    numbers = [getattr(signal, name) for name in ASKING if hasattr(signal, name)]
    heeded = [
        each
        for each in numbers
        if each != getattr(signal, "SIGHUP", None) or signal.getsignal(each) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
