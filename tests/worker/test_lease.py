"""A lease is kept while its worker lives, and known to be lost when another has taken the slot."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

from clrsearch.storage import Slots, open_database
from clrsearch.worker import lease as module
from clrsearch.worker.lease import Lease


@pytest.fixture
def slots(url):
    with open_database(url, create=True) as database:
        found = Slots(database.engine, "study")
        found.grow(["cyclic"])
        yield found


def expires(slots) -> float:
    with slots._engine.connect() as connection:
        return connection.scalar(sa.text("SELECT expires FROM clrsearch_slots"))


def take_over(slots) -> None:
    with slots._engine.begin() as connection:
        connection.execute(sa.text("UPDATE clrsearch_slots SET expires = 1"))
    assert slots.claim("another") is not None


def test_it_is_renewed_while_the_block_lasts(slots, monkeypatch) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
    slot = slots.claim("w")
    first = expires(slots)
    with Lease(slots, slot) as lease:
        time.sleep(0.5)
        assert lease.holds()
    renewed = expires(slots)
    assert renewed > first
    time.sleep(0.3)
    assert expires(slots) == renewed


def test_a_worker_that_was_suspended_finds_out_before_it_writes(slots, monkeypatch) -> None:
    slot = slots.claim("w")
    lease = Lease(slots, slot)  # not entered: as if no thread had run since
    assert lease.holds()
    take_over(slots)
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.0)
    assert not lease.holds()
    assert not lease.holds()
