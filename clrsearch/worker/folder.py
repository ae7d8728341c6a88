"""Checks that a study's workers share one checkpoint folder, so that they can resume trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from clrsearch.errors import StorageError
from clrsearch.storage import DATABASE_ERRORS, Slots
from clrsearch.training import Checkpoints

LOOK_SECONDS = 60.0
"""Interval between checks; network file systems may show new files with a delay."""
NAMED = 3  # workers listed in a message


class SharedFolder:
    """One worker's view of the checkpoint folder; as a context, its sign file is in the folder.

    Every worker leaves a file there. A worker that holds a slot but has left no file uses another
    folder, so trials taken over from it start from scratch.
    """

    def __init__(
        self, slots: Slots, checkpoints: Checkpoints, worker: str, on_note: Callable[[str], None]
    ) -> None:
        self._slots = slots
        self._checkpoints = checkpoints
        self._worker = worker
        self._on_note = on_note
        self._missed: set[str] = set()  # at the last check
        self._looked_at: float | None = None
        self._told = False

    def __enter__(self) -> SharedFolder:
        self._checkpoints.sign(self._worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.unsign(self._worker)

    def look(self) -> None:
        """Check once a minute; warn once about workers whose sign is missing twice in a row."""
        with suppress(StorageError):  # restore it if somebody has cleaned up
            self._checkpoints.sign(self._worker)
        now = time.monotonic()
        waits = self._looked_at is not None and now - self._looked_at < LOOK_SECONDS
        if self._told or waits:
            return
        self._looked_at = now
        with suppress(*DATABASE_ERRORS):
            others = {claim.worker for claim in self._slots.claims()}
            missing = self._checkpoints.unsigned(others)
            if apart := sorted(missing & self._missed):
                self._tell(apart)
            self._missed = missing

    def _tell(self, apart: list[str]) -> None:
        more = f" and {len(apart) - NAMED} others" if len(apart) > NAMED else ""
        self._told = True
        self._on_note(
            f"the checkpoints of {', '.join(apart[:NAMED])}{more} are not in "
            f"{self._checkpoints.folder}: trials taken over from there restart at "
            "epoch 0. Set --checkpoint-dir to a folder that all machines share"
        )
