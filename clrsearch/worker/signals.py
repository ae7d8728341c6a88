"""Leaving in good order: a signal or a limit is noted, and whoever trains or waits asks for it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from clrsearch.training.run import Interrupted

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR2", "SIGHUP")
    if hasattr(signal, name)
)
"""Ctrl-C, a stop or a preemption, what schedulers announce the end of a time limit with, and a
terminal that is closed, unless that is ignored: nohup."""

POLL_SECONDS = 0.1


class Interruption:
    """Whether this process is to leave, for it was asked to, or has come to its limits.

    A second Ctrl-C ends it at once.
    """

    def __init__(self, *, seconds: float | None = None, trials: int | None = None) -> None:
        """``seconds`` is how long it may stay from now on, ``trials`` how many it may end."""
        self._told = self._ctrl_c = False
        self._arrivals: socket.socket | None = None
        self._arrived: list[int] = []
        self._end = None if seconds is None else time.monotonic() + seconds
        self._trials_left = trials

    @property
    def asked(self) -> bool:
        """Whether it is to leave now."""
        late = self._end is not None and time.monotonic() >= self._end
        return self._told or late or self._trials_left == 0

    def noticed(self) -> bool:
        """The same for another thread, while the main thread is held up and handles no signal."""
        if self._arrivals is not None:
            with suppress(OSError):  # nothing has arrived, or nobody listens any more
                self._arrived += self._arrivals.recv(1024)
        if self._arrived.count(signal.SIGINT) > 1:
            os._exit(128 + signal.SIGINT)
        return self.asked or any(number in SIGNALS for number in self._arrived)

    def ask(self) -> None:
        """Let it leave."""
        self._told = True

    def count(self) -> None:
        """Note that it has ended a trial."""
        if self._trials_left is not None:
            self._trials_left -= 1

    def ask_when_parent_ends(self) -> None:
        """Let it leave when standard input ends, of which the parent holds the other end.

        What runs here finds an empty standard input instead.
        """
        lifeline = os.dup(0)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)

        def wait() -> None:
            while os.read(lifeline, 1024):
                pass
            self.ask()

        threading.Thread(target=wait, name="parent", daemon=True).start()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the block lasts; off the main thread, where none arrive, not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._handle) for number in SIGNALS if _heeded(number)
        }
        try:
            with self._arriving():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _arriving(self) -> Iterator[None]:
        """Have the numbers of signals written into a socket as they arrive, by C code."""
        reading, writing = socket.socketpair()
        with reading, writing:
            for each in (reading, writing):
                each.setblocking(False)
            self._arrivals = reading
            before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                self._arrivals = None

    def sleep(self, seconds: float) -> None:
        """Sleep, but not on.

        Raises:
            Interrupted: as soon as the process is to leave.
        """
        end = time.monotonic() + seconds
        while not self.asked:
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_SECONDS))
        raise Interrupted

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._ctrl_c:
                os._exit(128 + number)
            self._ctrl_c = True
        self.ask()


def _stop_writing() -> None:
    """In a forked process: its signals are its own, and it has inherited the parent's socket."""
    with suppress(ValueError):  # forked by another thread than the main one
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_writing)


def _heeded(number: int) -> bool:
    """Whether a signal counts: not the end of a terminal that this process was to survive."""
    return number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) != signal.SIG_IGN
