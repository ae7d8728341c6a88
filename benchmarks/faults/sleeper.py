"""A worker is suspended in the middle of a trial for longer than its lease, and wakes up again.

    python benchmarks/faults/sleeper.py [sqlite postgresql mysql] [--asleep 40]

Two workers, two slots: the other one ends its own, watches the sleeper's for a lease and takes it
over; then four slots are added, so that there is work for the sleeper when it wakes. For some
seconds from then on the other one is suspended in its turn: whatever still changes in the trial,
the sleeper has written.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import harness
import sqlalchemy as sa
from harness import Herd, Place, SlotRow
from script import command_line

from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.storage import StorageUrl, open_database, quiet_optuna

PLAN = StudyPlan(task=harness.TASK, trials=2, pruner="none", confirm=ConfirmPlan(enabled=False))
TRIALS = 6  # once the sleeper's slot has been taken over
ALONE = 6.0  # seconds that the sleeper is awake and the new owner is not: less than a lease
PROMPT = 1.5  # seconds from the end of an epoch until its value and its checkpoint are stored


def grow(place: Place) -> None:
    """Add slots, as ``clrsearch run`` with more ``--trials`` does."""
    quiet_optuna()
    with open_database(StorageUrl(place.url)) as database:
        Study.open(database, harness.STUDY).grow(TRIALS)


def look(place: Place, trial: int) -> tuple[Any, ...]:
    """What is stored of a trial: its state, its values, and which file its checkpoint is."""
    engine = sa.create_engine(StorageUrl(place.url).reveal(), poolclass=sa.NullPool)
    queries = (
        f"SELECT state, datetime_complete FROM trials WHERE number = {trial}",
        "SELECT step, intermediate_value, trial_intermediate_value_id "
        "FROM trial_intermediate_values JOIN trials USING (trial_id) "
        f"WHERE number = {trial} ORDER BY step",
    )
    with engine.connect() as connection:
        rows = [tuple(map(tuple, connection.execute(sa.text(query)))) for query in queries]
    paths = sorted(place.checkpoints.glob(f"*/trial-{trial}.pt"))
    try:
        files = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    except FileNotFoundError:  # replaced or removed just now
        return look(place, trial)
    return *rows, files


def until(what: str, met: Callable[[], Any], seconds: float = 120) -> Any:
    """What ``met`` returns, once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = met()
        if result:
            return result
        time.sleep(0.05)
    raise SystemExit(f"not within {seconds} s: {what}")


def put_to_sleep(place: Place, herd: Herd, name: str) -> tuple[SlotRow, int]:
    """Suspend a worker in the middle of its third epoch; its slot and its process."""

    def mine() -> SlotRow | None:
        held = [slot for slot in place.slots() if slot.worker == name]
        return held[0] if held and held[0].checkpoint == 2 else None

    slot = until("two epochs trained", mine)
    time.sleep(float(os.environ["FAULTS_EPOCH_SECONDS"]) / 2)
    process = herd.living[name].pid
    os.kill(process, signal.SIGSTOP)
    return slot, process


def wake(place: Place, slot: SlotRow, sleeper: int, owner: int) -> list[str]:
    """Let the sleeper go on while the new owner is suspended: what changed in the trial."""
    os.kill(owner, signal.SIGSTOP)
    try:
        before = look(place, slot.trial)
        os.kill(sleeper, signal.SIGCONT)
        end = time.monotonic() + ALONE
        while time.monotonic() < end:
            now = look(place, slot.trial)
            if now != before:
                return [f"written by the sleeper: {before} became {now}"]
            time.sleep(0.05)
    finally:
        os.kill(owner, signal.SIGCONT)
    return []


def watch(place: Place, slot: SlotRow, owner: int) -> tuple[int, list[str]]:
    """How often the trial changes until its end; changes that follow on no epoch of its owner."""
    changes: list[float] = []
    before = look(place, slot.trial)
    while place.slots()[slot.number].state == "claimed":
        now = look(place, slot.trial)
        if now != before:
            changes.append(time.time())
            before = now
        time.sleep(0.05)
    ends = [at for at, pid in place.epochs_trained() if pid == owner]
    strange = [at for at in changes if not any(0 <= at - end < PROMPT for end in ends)]
    return len(changes), [f"changed at {at}, the owner's epochs: {ends}" for at in strange]


def check(place: Place, herd: Herd, slot: SlotRow, names: tuple[str, str]) -> list[str]:
    """What should not have been seen in the end."""
    sleeper, owner = names
    slots = place.slots()
    found = herd.complaints([]) + harness.complaints(place, TRIALS)
    last = slots[slot.number]
    if (last.worker, last.attempt, last.trial) != (owner, 2, slot.trial):
        found.append(f"{slot} became {last}")
    if not any(each.worker == sleeper for each in slots):
        found.append(f"the sleeper has finished nothing: {slots}")
    found += [f"claimed twice: {s}" for s in slots if s.attempt > 1 and s.number != slot.number]
    return found


def run(place: Place, asleep: float) -> tuple[list[Any], list[str]]:
    """One study: the cells of its row, and what should not have been seen."""
    harness.begin(place, PLAN)
    herd = Herd(place)
    names = herd.hire(), herd.hire()
    try:
        slot, sleeper = put_to_sleep(place, herd, names[0])
        began = time.monotonic()
        owner = herd.living[names[1]].pid
        until("taken over", lambda: place.slots()[slot.number].attempt == 2)
        took = time.monotonic() - began
        harness.in_child(grow, place)
        until("an epoch of the new owner", lambda: place.slots()[slot.number].checkpoint > 2)
        time.sleep(max(0.0, asleep - (time.monotonic() - began)))
        woken_at = place.slots()[slot.number]
        slept = time.monotonic() - began
        found = wake(place, slot, sleeper, owner)
        new = [s for s in place.slots() if s.worker == names[0] and s.number != slot.number]
        if not new:
            found.append(f"no new slot within {ALONE} s")
        changes, strange = watch(place, slot, owner)
        herd.wait(300)
        found += strange + check(place, herd, slot, names)
    finally:
        herd.close()
    finished = sum(each.worker == names[0] for each in place.slots())
    epochs = len(place.epochs_trained())
    seconds = f"{slept:.1f}", f"{took:.1f}"
    ended = woken_at.state != "claimed"
    at = "ended" if ended else f"after epoch {woken_at.checkpoint}"
    return [*seconds, at, changes, finished, epochs, epochs - TRIALS * 8], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--asleep", type=float, default=40.0, help="seconds, at least")
    asked = command_line(parser, epoch_seconds="3")
    harness.header(
        *("database", "s asleep", "s until taken over", "the trial when it woke"),
        *("changes by the new owner after that", "slots that the sleeper finished"),
        *("epochs trained", "of them twice"),
    )
    for kind in asked.databases:
        with harness.fresh(kind) as place:
            cells, found = run(place, asked.asleep)
            harness.row(kind, *cells)
            harness.require(found)


if __name__ == "__main__":
    main()
