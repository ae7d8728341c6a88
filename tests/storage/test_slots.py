"""Slots: claimed once, held by one, exact with any number of workers."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import sqlalchemy as sa

from clrsearch.storage import Slots, SlotState, open_database


@pytest.fixture
def slots(url):
    with open_database(url, create=True) as database:
        found = Slots(database.engine, "study-1")
        found.grow(["cyclic", "cyclic", "constant"])
        yield found


def test_slots_are_claimed_in_order_each_once(slots) -> None:
    claimed = [slots.claim(f"w{index}") for index in range(4)]
    assert [(slot.number, slot.family) for slot in claimed[:3]] == [
        (0, "cyclic"),
        (1, "cyclic"),
        (2, "constant"),
    ]
    assert claimed[3] is None
    assert slots.counts() == {SlotState.CLAIMED: 3}


def test_growing_adds_only_what_is_missing(slots) -> None:
    slots.claim("w")
    slots.grow(["cyclic", "cyclic", "constant", "cyclic"])
    assert slots.counts() == {SlotState.CLAIMED: 1, SlotState.OPEN: 3}


def test_an_end_uses_the_slot_up(slots) -> None:
    slot = slots.claim("w")
    assert slots.bind(slot, 7)
    assert slots.finish(slot, SlotState.PRUNED)
    assert slots.counts()[SlotState.PRUNED] == 1
    assert not slots.finish(slot, SlotState.COMPLETE)
    assert not slots.renew(slot)
    assert not slots.hand_back(slot)


def test_a_slot_handed_back_is_claimed_again_under_the_next_attempt(slots) -> None:
    first = slots.claim("w")
    assert slots.hand_back(first)
    second = slots.claim("v")
    assert (first.number, first.attempt) == (0, 1)
    assert (second.number, second.attempt) == (0, 2)
    assert not slots.renew(first)
    assert slots.renew(second)


def test_an_expired_lease_is_taken_over_and_fences_its_former_holder(slots) -> None:
    lost, _, _ = (slots.claim("w") for _ in range(3))
    assert slots.claim("v") is None
    with slots._engine.begin() as connection:
        connection.execute(sa.text("UPDATE clrsearch_slots SET expires = 1 WHERE number = 0"))
    assert slots.live() == 2
    taken = slots.claim("v")
    assert (taken.number, taken.attempt) == (0, 2)
    assert not slots.renew(lost)
    assert not slots.finish(lost, SlotState.COMPLETE)


def test_the_slots_of_a_worker_that_died_are_released(slots) -> None:
    slots.claim("dead")
    slots.claim("alive")
    assert slots.release("dead") == 1
    assert slots.counts() == {SlotState.OPEN: 2, SlotState.CLAIMED: 1}


def test_studies_do_not_see_each_others_slots(slots) -> None:
    other = Slots(slots._engine, "study-2")
    other.grow(["constant"])
    other.delete()
    assert sum(slots.counts().values()) == 3
    assert sum(other.counts().values()) == 0


def test_eight_processes_claim_sixty_slots_each_once(url) -> None:
    with open_database(url, create=True) as database:
        Slots(database.engine, "many").grow(["cyclic"] * 60)
    program = (
        "import sys; from clrsearch.storage import *\n"
        "with open_database(StorageUrl(sys.argv[1])) as database:\n"
        "    slots = Slots(database.engine, 'many')\n"
        "    while slot := slots.claim(sys.argv[2]):\n"
        "        print(slot.number)\n"
        "        assert slots.finish(slot, SlotState.COMPLETE)\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, url.reveal(), f"w{index}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(8)
    ]
    claimed = Counter(
        int(line) for worker in workers for line in worker.communicate()[0].splitlines()
    )
    assert claimed == Counter(range(60))
    assert [worker.returncode for worker in workers] == [0] * 8
