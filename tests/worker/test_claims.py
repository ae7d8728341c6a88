"""Whose slots are taken over: those of workers that were watched to be silent, and no others."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from clrsearch.storage import Patience, Slots, open_database
from clrsearch.storage import slots as slots_module
from clrsearch.worker import claims as module
from clrsearch.worker.claims import Claims

LEASE = 1.0


@pytest.fixture(autouse=True)
def short_leases(monkeypatch) -> None:
    for each in (module, slots_module):
        monkeypatch.setattr(each, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)


@contextmanager
def opened(url, *, create=True):
    with open_database(url, create=create) as database:
        slots = Slots(database.engine, "study")
        slots.grow(["cyclic"] * 2)
        yield slots


def claims_of(slots) -> Claims:
    return Claims(slots, "me", patience=Patience(30.0), sleep=time.sleep)


@contextmanager
def renewing(slots, *held):
    """Workers that live."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(LEASE / 4):
            for slot in held:
                slots.renew(slot)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_open_slots_come_first(url) -> None:
    with opened(url) as slots:
        slots.claim("silent")
        began = time.monotonic()
        assert claims_of(slots).next().number == 1
        assert time.monotonic() - began < LEASE


def test_nobody_waits_for_slots_in_good_hands(url) -> None:
    with opened(url) as slots, renewing(slots, slots.claim("a"), slots.claim("b")):
        assert claims_of(slots).next() is None


def test_nobody_waits_when_all_have_ended(url) -> None:
    with opened(url) as slots:
        for _ in range(2):
            slots.finish(slots.claim("a"), slots_module.SlotState.COMPLETE)
        assert claims_of(slots).next() is None


def test_a_silent_workers_slot_is_taken_over_after_a_lease(url) -> None:
    with opened(url) as slots:
        silent, living = slots.claim("silent"), slots.claim("living")
        time.sleep(2 * LEASE)
        with renewing(slots, living):
            began = time.monotonic()
            taken = claims_of(slots).next()
        assert time.monotonic() - began >= LEASE
        assert (taken.number, taken.attempt, taken.losses) == (silent.number, 2, 1)


def set_clock(slots, seconds) -> None:
    """As if the database's clock had been set forward, or back, since the leases were renewed."""
    moved = sa.update(slots_module._slots).values(expires=slots_module._slots.c.expires - seconds)
    with slots._engine.begin() as connection:
        connection.execute(moved)


def test_a_clock_that_was_set_back_leaves_no_slot_behind(url) -> None:
    with opened(url) as slots:
        silent, living = slots.claim("silent"), slots.claim("living")
        set_clock(slots, -3600)
        with renewing(slots, living):
            taken = claims_of(slots).next()
        assert (taken.number, taken.losses) == (silent.number, 1)
        assert slots.renew(living)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_nobody_who_lives_looks_dead_when_the_clock_is_set(url, seconds) -> None:
    with opened(url) as slots:
        claims, held = claims_of(slots), [slots.claim("a"), slots.claim("b")]
        set_clock(slots, seconds)
        assert all(claim.expired for claim in slots.claims())
        assert not any(claims._silent(claim) for claim in slots.claims())
        time.sleep(2 * LEASE)
        assert all(slots.renew(slot) for slot in held)
        assert not any(claims._silent(claim) for claim in slots.claims())


def test_who_holds_slots_does_not_wait_for_others(url) -> None:
    with opened(url) as slots:
        claims, other = claims_of(slots), slots.claim("other")
        held = [claims.next().number]
        began = time.monotonic()
        assert claims.next(held=held) is None
        assert claims.next(held=held, stay=True) is None
        assert time.monotonic() - began < LEASE / 2
        slots.hand_back(other)
        assert claims.next(held=held).number == other.number


def test_who_holds_slots_takes_over_those_of_lost_workers(url) -> None:
    with opened(url) as slots:
        claims, lost = claims_of(slots), slots.claim("lost")
        held = claims.next()
        with renewing(slots, held):
            assert claims.next(held=[held.number]) is None
            time.sleep(2 * LEASE)
            assert claims.next(held=[held.number]).number == lost.number


def test_a_slot_that_opens_meanwhile_is_claimed(url) -> None:
    with opened(url) as slots:
        held = [slots.claim("a"), slots.claim("b")]
        opener = threading.Timer(LEASE / 2, slots.hand_back, [held[1]])
        opener.start()
        assert claims_of(slots).next().number == 1
        opener.join()


def test_who_was_watched_once_is_not_watched_anew_for_the_next(url) -> None:
    with opened(url) as slots:
        slots.claim("silent"), slots.claim("silent too")
        claims = claims_of(slots)
        time.sleep(2 * LEASE)
        first = claims.next()
        slots.finish(first, slots_module.SlotState.COMPLETE)
        began = time.monotonic()
        assert claims.next().number == 1 - first.number
        assert time.monotonic() - began < LEASE / 2
        claims.forget()


def test_who_was_watched_comes_before_slots_that_have_not_begun(url) -> None:
    with opened(url) as slots:
        slots.grow(["cyclic"] * 4)
        silent = slots.claim("silent")
        claims = claims_of(slots)
        assert claims.next().number == 1
        slots.finish(slots.claim("me"), slots_module.SlotState.COMPLETE)
        time.sleep(2 * LEASE)
        assert claims.next().number == silent.number


def test_after_an_outage_the_watch_begins_anew(far_url, postgresql, cable) -> None:
    with opened(far_url) as far, opened(postgresql) as near:
        near.claim("silent")
        living = near.claim("living")
        joined = []

        def outage() -> None:
            time.sleep(LEASE * 0.8)
            cable.cut()
            time.sleep(LEASE)
            cable.join()
            joined.append(time.monotonic())

        thread = threading.Thread(target=outage)
        with renewing(near, living):
            thread.start()
            taken = claims_of(far).next()
        thread.join()
        assert taken.number == 0
        assert time.monotonic() - joined[0] >= LEASE


def test_who_was_cut_off_with_everybody_is_not_dead(far_url, cable) -> None:
    with opened(far_url) as watching, opened(far_url, create=False) as working:
        held = working.claim("a"), working.claim("b")
        cable.cut()
        time.sleep(2 * LEASE)  # both leases run out
        found = []
        thread = threading.Thread(target=lambda: found.append(claims_of(watching).next()))
        thread.start()
        time.sleep(0.2)
        cable.join()
        assert all(Patience(10.0)(lambda slot=slot: working.renew(slot)) for slot in held)
        with renewing(working, *held):
            thread.join()
        assert found == [None]
