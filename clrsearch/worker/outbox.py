"""Values on their way into the database: they wait here for company, and while it is away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping


class Outbox:
    """The values of one trial, each sent once, those of short epochs together.

    ``values`` are those stored and those of the epochs run since; ``drift`` is the largest
    difference between a stored value and the one that its epoch gave when it was repeated.
    """

    def __init__(
        self, stored: Mapping[int, float], send: Callable[[Mapping[int, float]], None]
    ) -> None:
        """``stored`` are the values in the database; ``send`` is called with some by epoch."""
        self.values = dict(stored)
        self.drift = 0.0
        self._stored = dict(stored)
        self._waiting: dict[int, float] = {}
        self._send = send
        self._sent_at = -math.inf

    def put(self, epoch: int, value: float) -> bool:
        """Take the value of a finished epoch; False where the epoch has only been repeated."""
        if epoch in self._stored:
            self.drift = max(self.drift, abs(value - self._stored[epoch]))
            return False
        self.values[epoch] = self._waiting[epoch] = value
        return True

    def send(self, *, apart: float = 0.0) -> None:
        """Send what waits, but not within ``apart`` seconds after the last time.

        What an error of the database keeps from being sent waits on.
        """
        now = time.monotonic()
        if self._waiting and now - self._sent_at >= apart:
            self._send(dict(self._waiting))
            self._waiting.clear()
            self._sent_at = now
