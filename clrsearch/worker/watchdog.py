"""Watchdog for steps that never end: a thread measures how long the task's code is silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 1.0

# in ticks without progress
GRACE, GRACE_STEPS = 30, 3  # after a request to leave: ticks, or multiples of the longest step
STALL, STALL_STEPS = 600, 10  # likewise, otherwise
START = 3600  # while data is loaded and the first step compiled, until the end of the first epoch


class Watchdog:
    """Watches the task's code of one worker; its thread runs inside the context.

    The run calls :meth:`progress` whenever it checks whether to stop. Time is counted in ticks of
    the thread, because a suspended process makes none.
    """

    def __init__(
        self,
        asked: Callable[[], bool],
        on_hang: Callable[[str], None],
        *,
        stall_seconds: float | None = None,
    ) -> None:
        """``asked`` tells whether the process is to leave; it is called at each tick.

        ``on_hang`` is called once, from the thread, with a message about the silence.
        ``stall_seconds`` is the longest silence to bear, also at the start; by default ten times
        the longest one so far, and at least ten minutes, or an hour at the start.
        """
        self._stall = None if stall_seconds is None else max(1, round(stall_seconds / TICK_SECONDS))
        self._asked = asked
        self._on_hang = on_hang
        self._ticks = 0
        self._watching = False
        self._progressed_at = 0
        self._asked_at: int | None = None
        self._moves = False  # whether this run is past its start
        self._known = False  # whether the step times of a whole epoch, with validation, are known
        self._longest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="watchdog", daemon=True)

    def begin(self) -> None:
        """Start watching a new run, which may load its own data."""
        self._moves = False

    def progress(self) -> None:
        """Note progress of the task's code."""
        if self._moves:
            self._longest = max(self._longest, self._ticks - self._progressed_at)
        self._moves = True
        self._progressed_at = self._ticks

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context in which the task's code runs."""
        with self._switched(True):
            yield

    @contextmanager
    def after_epoch(self) -> Iterator[None]:
        """Context at the end of an epoch, nested in :meth:`watching`, for the worker's own code.

        That code may wait for the database.
        """
        self.progress()
        self._known = True
        with self._switched(False):
            yield

    @contextmanager
    def _switched(self, watching: bool) -> Iterator[None]:
        before = self._watching
        self._progressed_at, self._watching = self._ticks, watching
        try:
            yield
        finally:
            self._progressed_at, self._watching = self._ticks, before

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            if self.tick():
                return

    def tick(self) -> bool:
        """Count a tick; if there was no progress for too long, call ``on_hang`` and return True."""
        self._ticks += 1
        if self._asked() and self._asked_at is None:
            self._asked_at = self._ticks
        if not self._watching:
            return False
        if self._asked_at is not None:
            silent = self._ticks - max(self._progressed_at, self._asked_at)
            most, why = max(GRACE, GRACE_STEPS * self._longest), " since it was asked to stop"
        else:
            silent, why = self._ticks - self._progressed_at, ""
            least = STALL if self._moves and self._known else START
            most = max(least, STALL_STEPS * self._longest) if self._stall is None else self._stall
        if silent <= most:
            return False
        self._on_hang(f"the task has made no progress for {silent * TICK_SECONDS:.0f} s{why}")
        return True
