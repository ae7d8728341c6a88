"""A lease is kept while its worker lives, and known to be lost when another has taken the slot."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import OperationalError

from clrsearch.storage import Slots, open_database
from clrsearch.storage import slots as slots_module
from clrsearch.worker import lease as module
from clrsearch.worker.lease import Lease


@pytest.fixture
def lease_of(monkeypatch):
    """Make leases so short."""

    def shorten(seconds):
        for each in (module, slots_module):
            monkeypatch.setattr(each, "LEASE_SECONDS", seconds)
        monkeypatch.setattr(module, "RETRY_SECONDS", seconds / 10)

    return shorten


@contextmanager
def one_slot(url):
    """A database in which one slot is open."""
    with open_database(url, create=True) as database:
        found = Slots(database.engine, "study")
        found.grow(["cyclic"])
        yield found


@pytest.fixture
def slots(url):
    with one_slot(url) as found:
        yield found


def expires(slots) -> float:
    return slots.claims()[0].expires


def wait_for(condition, seconds=20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_it_is_renewed_while_the_block_lasts(slots, lease_of) -> None:
    lease_of(0.6)
    slot = slots.claim("w")
    first = expires(slots)
    with Lease(slots, slot, patience=60) as lease:
        time.sleep(1.0)
        assert lease.fresh()
    renewed = expires(slots)
    assert renewed > first + 0.3
    time.sleep(0.5)
    assert expires(slots) == renewed
    assert not lease.fresh()


def test_a_worker_that_was_suspended_may_not_write_before_the_next_renewal(slots, lease_of) -> None:
    lease_of(0.4)
    lease = Lease(slots, slots.claim("w"), patience=60)  # not entered: as if nothing had run since
    assert lease.fresh()
    time.sleep(0.5)
    assert not lease.fresh()
    with lease:
        assert lease.settle(time.sleep)
        assert lease.fresh()


def test_a_slot_that_was_taken_over_is_lost_for_good(slots, lease_of) -> None:
    lease_of(0.4)
    lease = Lease(slots, slots.claim("w"), patience=60)
    time.sleep(0.5)
    assert slots.take_over(slots.claims()[0], "another") is not None
    with lease:
        assert not lease.settle(time.sleep)
    assert lease.lost
    assert not lease.fresh()


@pytest.fixture
def far(far_url):
    with one_slot(far_url) as found:
        yield found


def test_an_outage_is_not_fresh_and_not_lost_and_passes(far, cable, lease_of) -> None:
    lease_of(1.5)
    with Lease(far, far.claim("w"), patience=60) as lease:
        cable.cut()
        wait_for(lambda: not lease.fresh())
        time.sleep(2.0)
        assert not lease.fresh()
        assert not lease.lost
        cable.join()
        assert lease.settle(time.sleep)
        assert lease.fresh()


def test_what_outlasts_patience_is_raised(far, cable, lease_of) -> None:
    lease_of(0.3)
    with Lease(far, far.claim("w"), patience=0.5) as lease:
        cable.cut()
        with pytest.raises(OperationalError):
            lease.settle(time.sleep)
            wait_for(lambda: not lease.fresh())
            lease.settle(time.sleep)
        cable.join()
        wait_for(lambda: lease._trouble is None)


def test_an_error_that_does_not_pass_is_raised_at_once(slots, lease_of) -> None:
    lease_of(0.3)
    waits: list[BaseException] = []
    with Lease(slots, slots.claim("w"), patience=60, on_trouble=waits.append) as lease:
        with slots._engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE clrsearch_slots RENAME TO gone")
        with pytest.raises(OperationalError, match="no such table"):
            wait_for(lambda: not lease.fresh())
    assert waits == []  # none follows
