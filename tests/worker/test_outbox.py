"""Values wait while they cannot be sent, and are sent once."""

from __future__ import annotations

import time

import pytest

from clrsearch.worker.outbox import Outbox


def test_values_are_sent_in_order_each_once() -> None:
    sent = []
    outbox = Outbox({}, sent.append)
    assert outbox.put(1, 0.5)
    outbox.send()
    assert outbox.put(2, 0.25)
    assert outbox.put(3, 0.125)
    outbox.send()
    outbox.send()
    assert sent == [{1: 0.5}, {2: 0.25, 3: 0.125}]
    assert list(sent[1]) == [2, 3]


def test_those_of_short_epochs_wait_for_company_and_the_first_does_not() -> None:
    sent = []
    outbox = Outbox({}, sent.append)
    for epoch in (1, 2, 3):
        outbox.put(epoch, 1 / epoch)
        outbox.send(apart=0.2)
    assert sent == [{1: 1.0}]
    time.sleep(0.25)
    outbox.put(4, 0.25)
    outbox.send(apart=0.2)
    assert sent == [{1: 1.0}, {2: 1 / 2, 3: 1 / 3, 4: 0.25}]


def test_what_an_error_kept_from_being_sent_is_sent_later() -> None:
    sent = []
    broken = iter([False, True, False])

    def send(values):
        if next(broken):
            raise ConnectionError
        sent.append(list(values))

    outbox = Outbox({}, send)
    outbox.put(1, 0.5)
    outbox.send()
    outbox.put(2, 0.25)
    with pytest.raises(ConnectionError):
        outbox.send()
    outbox.put(3, 0.125)
    outbox.send(apart=0.0)
    assert sent == [[1], [2, 3]]


def test_a_repeated_epoch_is_compared_and_not_sent_again() -> None:
    sent = []
    outbox = Outbox({1: 0.5, 2: 0.25}, sent.append)
    assert not outbox.put(1, 0.5)
    assert outbox.drift == 0.0
    assert not outbox.put(2, 0.3125)
    assert outbox.drift == 0.0625
    outbox.put(3, 0.125)
    outbox.send()
    assert sent == [{3: 0.125}]
    assert outbox.values == {1: 0.5, 2: 0.25, 3: 0.125}
