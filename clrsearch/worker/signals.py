"""Graceful shutdown: signals and limits are recorded, and polled by whoever trains or waits."""

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
"""Ctrl-C, a stop or preemption, the time limit's announcement, and a closed terminal.

SIGHUP is left alone if it is ignored (nohup).
"""

POLL_SECONDS = 0.1


class Interruption:
    """Whether this process should leave, because it was asked to or has reached its limits.

    A second Ctrl-C ends it at once.

    Attributes:
        trials_left: the number of trials that it may still end; None if there is no limit.
    """

    def __init__(self, *, seconds: float | None = None, trials: int | None = None) -> None:
        """``seconds`` is the time limit from now, ``trials`` the number of trials it may end."""
        self._told = self._ctrl_c = False
        self._arrivals: socket.socket | None = None
        self._arrived: list[int] = []
        self._end = None if seconds is None else time.monotonic() + seconds
        self._deadline: float | None = None
        self.trials_left = trials

    def end_in(self, seconds: float | None) -> None:
        """Leave after this time from now at the latest, or at any; earlier calls are forgotten."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @property
    def asked(self) -> bool:
        """Whether to leave now."""
        now = time.monotonic()
        late = any(end is not None and now >= end for end in (self._end, self._deadline))
        over = self.trials_left is not None and self.trials_left <= 0
        return self._told or late or over

    def noticed(self) -> bool:
        """Like ``asked``, but for other threads, while the main thread cannot handle signals."""
        if self._arrivals is not None:
            with suppress(OSError):  # nothing has arrived, or the socket is closed
                self._arrived += self._arrivals.recv(1024)
        if self._arrived.count(signal.SIGINT) > 1:
            os._exit(128 + signal.SIGINT)
        return self.asked or any(number in SIGNALS for number in self._arrived)

    def ask(self) -> None:
        """Ask the process to leave."""
        self._told = True

    def count(self) -> None:
        """Count a trial that has ended."""
        if self.trials_left is not None:
            self.trials_left -= 1

    def ask_when_parent_ends(self) -> None:
        """Leave when the parent closes the other end of standard input.

        Code in this process sees an empty standard input instead.
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
        """Handle the signals inside the context; a no-op off the main thread, where none arrive."""
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
        """Have signal numbers written to a socket on arrival, by the interpreter's C handler."""
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
        """Sleep, unless interrupted.

        Raises:
            Interrupted: as soon as the process should leave.
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


@contextmanager
def ignoring_signals() -> Iterator[None]:
    """Leave the signals to rank 0 of this process's group, which says when to leave.

    A handler does it, not SIG_IGN, which the processes of a DataLoader would inherit.
    """
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_writing() -> None:
    """Detach a forked process from the parent's socket, which its own signals must not reach."""
    with suppress(ValueError):  # forked off the main thread
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_writing)


def _heeded(number: int) -> bool:
    """Whether to handle a signal: all but a SIGHUP that this process was started to ignore."""
    return number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) != signal.SIG_IGN
