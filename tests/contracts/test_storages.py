"""What every database must do: each kind is a real one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

import pytest
import sqlalchemy as sa
from facts import make_facts

from clrsearch import service
from clrsearch.errors import StorageError
from clrsearch.schedules import Value
from clrsearch.search import Study, StudyPlan
from clrsearch.storage import LEASE_SECONDS, Slot, Slots, SlotState, open_database
from clrsearch.storage.slots import _slots as table
from clrsearch.worker import WorkerSettings

WHO = {"worker": "w", "device": "cpu"}
FACTS = make_facts(metric="error", epochs=4, batch_size=8, steps_per_epoch=4, base_lr=0.02)


@pytest.fixture
def database(any_url):
    with open_database(any_url, create=True) as opened:
        yield opened


@pytest.fixture
def slots(database):
    found = Slots(database.engine, "study-1")
    found.grow(["cyclic", "cyclic", "constant"])
    return found


@pytest.fixture
def study(database):
    plan = StudyPlan(families=("cyclic",), task="tiny.py:Tiny", trials=3)
    return Study.create(database, "mine", plan, FACTS, {"clrsearch": "0"})


def claimed(study) -> tuple[Slot, dict[str, Value]]:
    """A slot, and what a trial is to play in it."""
    return study.slots.claim("w"), study.space.seed_points("cyclic")[0]


def expire(slots, number, days=1) -> None:
    """As if the worker had been silent for a day, or the clock had been set forward by one."""
    day = sa.update(table).values(expires=table.c.expires - days * 86_400)
    with slots._engine.begin() as connection:
        assert connection.execute(day.where(table.c.number == number)).rowcount == 1


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
    slots.grow(["cyclic"])
    assert slots.counts() == {SlotState.CLAIMED: 1, SlotState.OPEN: 3}


def test_many_slots_are_added_in_batches(slots) -> None:
    slots.grow(["cyclic", "cyclic", "constant"] + ["cyclic"] * 2500)
    assert list(slots.states()) == list(range(2503))
    assert (slots.first_of("constant"), slots.first_of("linear")) == (2, None)
    assert [slots.rank(slots.claim(f"w{index}")) for index in range(4)] == [0, 1, 0, 2]


def test_an_end_uses_the_slot_up(slots) -> None:
    slot = slots.claim("w")
    assert slots.bind(slot, 7)
    assert slots.finish(slot, SlotState.PRUNED)
    assert slots.counts()[SlotState.PRUNED] == 1
    assert slots.states()[0] == SlotState.PRUNED
    assert not slots.finish(slot, SlotState.COMPLETE)
    assert not slots.renew(slot)
    assert not slots.hand_back(slot)
    assert not slots.note_checkpoint(slot, 3)


def test_a_slot_handed_back_is_claimed_again_under_the_next_attempt(slots) -> None:
    first = slots.claim("w")
    assert slots.hand_back(first)
    second = slots.claim("v")
    assert (first.number, first.attempt) == (0, 1)
    assert (second.number, second.attempt, second.losses) == (0, 2, 0)
    assert not slots.renew(first)
    assert slots.renew(second)


def test_leaving_a_trial_without_a_new_checkpoint_counts_as_a_loss(slots) -> None:
    for losses in (0, 1, 2):
        held = slots.claim("w")
        assert held.losses == losses
        slots.bind(held, 1)
        slots.hand_back(held)
    held = slots.claim("w")
    slots.note_checkpoint(held, 3)
    slots.hand_back(held)
    again = slots.claim("w")
    assert (again.losses, again.checkpoint) == (0, 3)
    slots.hand_back(again)
    assert slots.claim("w").losses == 1


def test_a_slot_left_by_a_failed_device_is_for_another_machine_first(slots) -> None:
    held = slots.claim("one:1:a")
    slots.bind(held, 1)
    assert slots.release("one:1:a", wary=True) == 1
    assert slots.claim("one:1:b").number == 1
    again = slots.claim("two:1:a")
    assert (again.number, again.trial, again.losses) == (0, 1, 1)


def test_a_slot_that_failed_in_a_worker_can_be_left_to_others(slots) -> None:
    for number in range(3):
        slot = slots.claim("one:1:a")
        assert slot.number == number
        slots.hand_back(slot, anew=True)
    assert slots.claim("one:1:a", again=False) is None
    assert slots.claim("one:1:b", again=False).number == 0
    assert slots.claim("one:1:a").number == 1


def test_interrupted_trials_come_first_and_are_not_cancelled(slots) -> None:
    slots.claim("v")
    held = slots.claim("w")
    slots.bind(held, 1)
    slots.hand_back(held)
    again = slots.claim("u")
    assert (again.number, again.trial) == (1, 1)
    slots.hand_back(again)
    assert slots.cancel() == 1
    assert slots.states() == {0: "claimed", 1: "open", 2: "cancelled"}


def test_a_run_that_was_cancelled_is_open_again_when_it_is_asked_for(slots) -> None:
    runs = Slots(slots._engine, "study-1", "confirm")
    runs.grow_runs({3: "cyclic", 7: "constant"}, [(3, 1), (7, 1), (3, 2), (7, 2)])
    assert runs.cancel() == 4
    runs.grow_runs({3: "cyclic"}, [(3, 2), (3, 3)])
    assert runs.counts() == {SlotState.CANCELLED: 3, SlotState.OPEN: 2}
    assert runs.runs() == {(3, 1): "cancelled", (7, 1): "cancelled", (3, 2): "open"} | {
        (7, 2): "cancelled",
        (3, 3): "open",
    }
    assert (runs.claim("w").finalist, runs.claim("v").seed_index) == (3, 3)


def test_a_failed_slot_is_for_another_machine_first_then_for_another_process(slots) -> None:
    slots.hand_back(slots.claim("one:1:a"), anew=True)
    slots.hand_back(slots.claim("one:1:b"), anew=True)  # not slot 0, which failed on its machine
    assert slots.claim("one:1:a").number == 2
    elsewhere = slots.claim("two:1:a")
    assert elsewhere.number == 0
    slots.hand_back(elsewhere, anew=True)
    last = slots.claim("two:1:a")
    assert last.number == 1
    slots.finish(last, SlotState.COMPLETE)
    assert slots.claim("two:1:a").number == 0


def test_a_claim_whose_answer_was_lost_is_found_by_the_next(slots) -> None:
    unheard = slots.claim("w")
    again = slots.claim("w")
    assert (again.number, again.attempt) == (unheard.number, unheard.attempt + 1)
    assert slots.claim("v").number == 1


def test_a_worker_may_hold_several_slots(slots) -> None:
    first = slots.claim("w")
    second = slots.claim("w", held=[first.number])
    assert (first.number, second.number, second.attempt) == (0, 1, 1)
    slots.hand_back(first)  # as if somebody else had taken it over in the meantime
    assert slots.claim("w", held=[first.number, second.number]).number == 2
    assert slots.claim("v").number == 0


def test_a_lease_that_ends_later_than_any_can_has_expired(slots) -> None:
    lost = slots.claim("w")
    expire(slots, 0, days=-1)  # as if the clock had been set back by a day
    (seen,) = slots.claims()
    assert seen.age < -86_000
    assert (seen.expired, slots.live()) == (True, 0)
    assert slots.renew(lost)  # it lives: all is as it should be again
    (renewed,) = slots.claims()
    assert (renewed.expired, slots.live()) == (False, 1)
    assert slots.take_over(renewed, "v") is None
    expire(slots, 0, days=-1)
    taken = slots.take_over(slots.claims()[0], "v")
    assert (taken.number, taken.losses) == (0, 1)
    assert not slots.renew(lost)


def test_a_lease_that_ends_a_little_later_than_it_can_stands(slots) -> None:
    slots.claim("w")
    expire(slots, 0, days=-10 / 86_400)  # a clock that is adjusted by seconds
    (seen,) = slots.claims()
    assert not seen.expired
    assert slots.take_over(seen, "v") is None


def test_only_an_expired_lease_is_taken_over_and_its_former_holder_fenced(slots) -> None:
    lost, _, _ = (slots.claim(f"w{index}") for index in range(3))
    fresh, *_ = slots.claims()
    assert slots.take_over(fresh, "v") is None
    expire(slots, 0)
    assert slots.live() == 2
    seen, *_ = slots.claims()
    assert (seen.number, seen.worker, seen.attempt, seen.expired) == (0, "w0", 1, True)
    taken = slots.take_over(seen, "v")
    assert (taken.number, taken.attempt, taken.losses) == (0, 2, 1)
    assert slots.take_over(seen, "u") is None
    assert not slots.renew(lost)
    assert not slots.finish(lost, SlotState.COMPLETE)
    assert slots.finish(taken, SlotState.COMPLETE)


def test_a_renewed_lease_is_not_taken_over(slots) -> None:
    slot = slots.claim("w")
    expire(slots, 0)
    (seen,) = slots.claims()
    assert slots.renew(slot)
    assert slots.take_over(seen, "v") is None


def test_losses_count_up_to_the_next_checkpoint(slots) -> None:
    slots.claim("w")
    assert slots.release("w") == 1
    assert slots.claim("v").losses == 1
    expire(slots, 0)
    taken = slots.take_over(slots.claims()[0], "u")
    assert taken.losses == 2
    assert slots.note_checkpoint(taken, 5)
    (claim,) = slots.claims()
    assert (claim.losses, claim.checkpoint) == (0, 5)


def test_the_slots_of_a_worker_that_died_are_released(slots) -> None:
    slots.claim("dead")
    slots.claim("alive")
    assert slots.release("dead") == 1
    assert slots.counts() == {SlotState.OPEN: 2, SlotState.CLAIMED: 1}


def test_failed_slots_are_tried_again_and_open_ones_cancelled(slots) -> None:
    slots.finish(slots.claim("w"), SlotState.FAILED)
    slots.finish(slots.claim("w"), SlotState.COMPLETE)
    assert slots.cancel() == 1
    assert slots.retry() == 1
    assert slots.counts() == {
        SlotState.OPEN: 1,
        SlotState.COMPLETE: 1,
        SlotState.CANCELLED: 1,
    }
    assert slots.claim("v").number == 0
    assert slots.claim("v").number == 0  # none but its own is left


def test_of_the_open_slots_the_lowest_are_kept(slots) -> None:
    slots.grow(["cyclic"] * 6)
    begun = slots.claim("w")
    slots.bind(begun, 1)
    slots.hand_back(begun)
    slots.claim("v", held=[0])
    assert (slots.starting(), slots.unfinished()) == (1, 6)
    assert slots.cancel(keep=2) == 2
    assert slots.cancel(keep=2) == 0
    states = [str(state) for state in slots.states().values()]
    assert states == ["open", "claimed", "open", "open", "cancelled", "cancelled"]


def test_cancelled_slots_are_reopened_up_to_a_total(slots) -> None:
    slots.claim("w")
    slots.cancel()
    assert slots.reopen(2) == 1
    assert slots.reopen(2) == 0
    assert slots.states() == {0: "claimed", 1: "open", 2: "cancelled"}


def test_studies_do_not_see_each_others_slots(slots) -> None:
    other = Slots(slots._engine, "study-2")
    other.grow(["constant"])
    other.delete()
    assert sum(slots.counts().values()) == 3
    assert sum(other.counts().values()) == 0


def test_a_lease_is_counted_by_the_databases_clock(slots) -> None:
    slots.claim("w")
    (before,) = slots.claims()
    time.sleep(0.5)
    (after,) = slots.claims()
    assert before.expires == after.expires
    assert 0.0 <= before.age < 5.0
    assert 0.4 < after.age - before.age < 5.0
    assert abs(before.expires - LEASE_SECONDS - time.time()) < 60.0  # the server is this machine


def eight_times(program, url) -> str:
    """What eight processes print that run a program at once; they import what it needs but once."""
    fork = (
        "import os, sys\n"
        "from clrsearch.storage import *\n"
        "url = StorageUrl(sys.argv[1])\n"
        "children = {}\n"
        "for index in range(8):\n"
        "    children[index] = os.fork()\n"
        "    if not children[index]:\n"
        f"        exec({program!r})\n"
        "        os._exit(0)\n"
        "ends = [os.waitpid(child, 0)[1] for child in children.values()]\n"
        "assert ends == [0] * 8, ends\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", fork, url.reveal()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_eight_processes_claim_sixty_slots_each_once(database) -> None:
    Slots(database.engine, "many").grow(["cyclic"] * 60)
    done = eight_times(
        "with open_database(url) as database:\n"
        "    slots = Slots(database.engine, 'many')\n"
        "    while slot := slots.claim(f'w{index}'):\n"
        "        os.write(1, b'%d\\n' % slot.number)\n"
        "        assert slots.finish(slot, SlotState.COMPLETE)\n",
        database.url,
    )
    assert Counter(map(int, done.split())) == Counter(range(60))


def test_eight_processes_make_one_database(any_url) -> None:
    assert eight_times("with open_database(url, create=True): pass\n", any_url) == ""
    with open_database(any_url) as database, database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM version_info").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar() == 1


def test_nothing_is_made_unless_asked(any_url) -> None:
    with pytest.raises(StorageError, match="no studies at"), open_database(any_url):
        pass
    assert service.list_studies() == []


def test_a_trial_comes_back_as_it_went(database, study) -> None:
    slot, params = claimed(study)
    number = study.begin(slot, params, WHO)
    values = {1: 0.1 + 0.2, 2: 1e-300, 3: 1 / 3, 4: 123456789.12345679}
    for epoch, value in values.items():
        assert study.log.report(number, {epoch: value})
    assert study.log.report(number, {3: 1 / 3})
    assert study.log.complete(number, values[4], {"metrics": {"error": values[4]}, "seconds": 1.5})
    again = Study.open(database, "mine").trial(number)
    assert again.values == values
    assert again.params == params
    assert again.state == "complete"
    assert study.trial(number) == again


def test_an_ended_trial_takes_nothing_more(database, study) -> None:
    slot, params = claimed(study)
    number = study.begin(slot, params, WHO)
    study.log.report(number, {1: 0.5})
    assert study.log.prune(number, {"seconds": 1.0}, diverged=True)
    before = study.trial(number)
    assert not study.log.report(number, {2: 0.25})
    assert not study.log.complete(number, 0.25, {"metrics": {}})
    assert not study.log.prune(number, {})
    assert not study.log.fail(number, {"error": "late"})
    assert not study.log.resume(number, {"worker": "late"})
    assert Study.open(database, "mine").trial(number) == before


def test_what_was_begun_twice_is_discarded(study) -> None:
    slot, params = claimed(study)
    first, twice = (study.begin(slot, params, WHO) for _ in range(2))
    study.discard_orphans()
    assert [record.number for record in study.history.records()] == [first, twice]
    study.log.complete(first, 0.5, {})
    study.slots.finish(slot, SlotState.COMPLETE)
    study.discard_orphans()
    assert [record.number for record in study.history.records()] == [first]


def test_a_study_runs_from_the_command_to_its_end(any_url, task_dir) -> None:
    plan = StudyPlan(families=("cyclic",), task="tiny.py:Tiny", trials=6)
    # test_service and test_survival have workers of their own on the other two
    result = service.run(
        plan,
        name="mine",
        workers=1 if any_url.dialect == "mysql" else 0,
        settings=WorkerSettings(device="cpu", task_dir=task_dir),
    )
    assert result.snapshot.done == 6
    assert result.snapshot.confirmed.left == 0
    assert [each.name for each in service.list_studies()] == ["mine"]
    best = service.best("mine")
    assert best.trial.state == "complete"
    assert service.replay("mine", best.trial.number, device="cpu", task_dir=task_dir).matches
    service.delete("mine")
    assert service.list_studies() == []
