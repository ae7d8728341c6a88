"""Leaving in good order: the first signal interrupts the training, a second Ctrl-C the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Raised inside :meth:`Interruption.allowed`; no ``except Exception`` of a task swallows it."""


class Interruption:
    """Whether this process has been asked to leave.

    The signal raises only where :meth:`allowed` says so, never in the middle of a write.
    """

    def __init__(self) -> None:
        self.asked = False
        self._allowed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the block lasts; off the main thread, where none arrive, not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A block that the signal may break off with :class:`Interrupted`."""
        self._allowed = True
        try:
            if self.asked:
                raise Interrupted
            yield
        finally:
            self._allowed = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            os._exit(128 + number)
        self.asked = True
        if self._allowed:
            self._allowed = False
            raise Interrupted
