"""Noticing a step that never ends: a thread that counts how long the task's code is silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 1.0

# in ticks without progress
GRACE, GRACE_STEPS = 30, 3  # once the process is to leave: so many, or steps as long as the longest
STALL, STALL_STEPS = 600, 10  # the same, otherwise
START = 3600  # while data is loaded and the first step compiled; up to the end of the first epoch


class Watchdog:
    """Watches the task's code of one worker; its thread runs while the block lasts.

    Progress is what :meth:`progress` is called at: the moments at which a run asks whether to stop.
    Time is counted in ticks of the thread, of which a process that is suspended makes none.
    """

    def __init__(self, asked: Callable[[], bool], on_hang: Callable[[str], None]) -> None:
        """``asked`` says at each tick whether the process is to leave.

        ``on_hang`` is called once, from the thread, with what there is to say of the silence.
        """
        self._asked = asked
        self._on_hang = on_hang
        self._ticks = 0
        self._watching = False
        self._progressed_at = 0
        self._asked_at: int | None = None
        self._moves = False  # this run does, past its start
        self._known = False  # how long an epoch's steps take, validation among them
        self._longest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="watchdog", daemon=True)

    def begin(self) -> None:
        """Begin with a new run: it may load data of its own."""
        self._moves = False

    def progress(self) -> None:
        """Note that the task's code goes on."""
        if self._moves:
            self._longest = max(self._longest, self._ticks - self._progressed_at)
        self._moves = True
        self._progressed_at = self._ticks

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A block in which the task's code runs."""
        with self._switched(True):
            yield

    @contextmanager
    def after_epoch(self) -> Iterator[None]:
        """A block within that at the end of an epoch, in which the worker has its own to do.

        It may wait for the database there.
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
        """Count one more; whether there was no progress for too long, which ``on_hang`` is told."""
        self._ticks += 1
        if self._asked() and self._asked_at is None:
            self._asked_at = self._ticks
        if not self._watching:
            return False
        if self._asked_at is not None:
            silent = self._ticks - max(self._progressed_at, self._asked_at)
            most, why = max(GRACE, GRACE_STEPS * self._longest), " since it was asked to leave"
        else:
            silent, why = self._ticks - self._progressed_at, ""
            least = STALL if self._moves and self._known else START
            most = max(least, STALL_STEPS * self._longest)
        if silent <= most:
            return False
        self._on_hang(f"the task has made no progress for {silent * TICK_SECONDS:.0f} s{why}")
        return True
