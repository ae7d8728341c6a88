"""Values wait while they cannot be sent, and are sent once."""

from __future__ import annotations

import pytest

from clrsearch.worker.outbox import Outbox


def test_values_are_sent_in_order_each_once() -> None:
    sent = []
    outbox = Outbox({}, lambda *value: sent.append(value))
    assert outbox.put(1, 0.5)
    outbox.send()
    assert outbox.put(2, 0.25)
    assert outbox.put(3, 0.125)
    outbox.send()
    outbox.send()
    assert sent == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_what_an_error_kept_from_being_sent_is_sent_later() -> None:
    sent = []
    broken = iter([False, True, False, False])

    def send(epoch, value):
        if next(broken):
            raise ConnectionError
        sent.append(epoch)

    outbox = Outbox({}, send)
    outbox.put(1, 0.5)
    outbox.put(2, 0.25)
    with pytest.raises(ConnectionError):
        outbox.send()
    outbox.put(3, 0.125)
    outbox.send()
    assert sent == [1, 2, 3]


def test_a_repeated_epoch_is_compared_and_not_sent_again() -> None:
    sent = []
    outbox = Outbox({1: 0.5, 2: 0.25}, lambda *value: sent.append(value))
    assert not outbox.put(1, 0.5)
    assert outbox.drift == 0.0
    assert not outbox.put(2, 0.3125)
    assert outbox.drift == 0.0625
    outbox.put(3, 0.125)
    outbox.send()
    assert sent == [(3, 0.125)]
    assert outbox.values == {1: 0.5, 2: 0.25, 3: 0.125}
