"""Values on their way into the database: they wait here while it is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Outbox:
    """The values of one trial, sent in the order of their epochs, each once.

    ``values`` are those stored and those of the epochs run since; ``drift`` is the largest
    difference between a stored value and the one that its epoch gave when it was repeated.
    """

    def __init__(self, stored: Mapping[int, float], send: Callable[[int, float], None]) -> None:
        """``stored`` are the values in the database; ``send`` is called with epoch and value."""
        self.values = dict(stored)
        self.drift = 0.0
        self._stored = dict(stored)
        self._waiting: dict[int, float] = {}
        self._send = send

    def put(self, epoch: int, value: float) -> bool:
        """Take the value of a finished epoch; False where the epoch has only been repeated."""
        if epoch in self._stored:
            self.drift = max(self.drift, abs(value - self._stored[epoch]))
            return False
        self.values[epoch] = self._waiting[epoch] = value
        return True

    def send(self) -> None:
        """Send what waits; what an error of the database keeps from being sent waits on."""
        for epoch in sorted(self._waiting):
            self._send(epoch, self._waiting[epoch])
            del self._waiting[epoch]
