"""Buffer of values to report: batches those of short epochs, and holds them during outages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping


class Outbox:
    """The values of one trial, each sent once, those of short epochs in batches.

    Attributes:
        values: the stored values, and those of the epochs run since.
        drift: largest difference between a stored value and that of the repeated epoch.
    """

    def __init__(
        self, stored: Mapping[int, float], send: Callable[[Mapping[int, float]], None]
    ) -> None:
        """``stored`` are the values in the database; ``send`` stores a batch of values by epoch."""
        self.values = dict(stored)
        self.drift = 0.0
        self._stored = dict(stored)
        self._waiting: dict[int, float] = {}
        self._send = send
        self._sent_at = -math.inf

    def put(self, epoch: int, value: float) -> bool:
        """Add the value of a finished epoch; False if the epoch was only repeated."""
        if epoch in self._stored:
            self.drift = max(self.drift, abs(value - self._stored[epoch]))
            return False
        self.values[epoch] = self._waiting[epoch] = value
        return True

    def send(self, *, apart: float = 0.0) -> None:
        """Send the buffered values, but not within ``apart`` seconds after the last time.

        Values that a database error keeps from being sent stay in the buffer.
        """
        now = time.monotonic()
        if self._waiting and now - self._sent_at >= apart:
            self._send(dict(self._waiting))
            self._waiting.clear()
            self._sent_at = now
