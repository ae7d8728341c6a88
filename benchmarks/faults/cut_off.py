"""A host that is cut off from the database and joined again: what is seen of it, what must hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import harness
from audit import Write, writes
from harness import Place, SlotRow
from hosts import Hosts, held, of_host
from network import Server, ask
from sleeper import until

from clrsearch.search import Study
from clrsearch.storage import StorageUrl, open_database, quiet_optuna

LONGEST_RETURN = 60.0  # seconds from the joining to a new slot
SETTLED = 1.0  # seconds after the cut, in which what was under way may still arrive
PROMPT = 2.5  # seconds from the end of an epoch until its checkpoint is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What was seen of the host that was cut off: its slot as it was then, and who took it over.

    ``cut`` and ``joined`` are times; ``took`` the seconds from the cut to the takeover, ``back``
    those from the joining to a new slot. ``changes`` are the times at which the checkpoint of the
    slot's trial has changed since the takeover, in a folder that all hosts see.
    """

    slot: SlotRow
    owner: int
    cut: float
    joined: float
    took: float
    back: float
    changes: Sequence[float]


def about_to_be_cut(hosts: Hosts) -> SlotRow:
    """Wait until all hosts hold a slot and the first has trained two epochs: its slot."""

    def ready() -> SlotRow | None:
        mine = held(hosts.place, 1)
        if mine is None or (mine.checkpoint or 0) < 2:
            return None
        late = [host for host in (2, 3) if held(hosts.place, host) is None]
        return None if late else mine

    return until("a slot on each host, two epochs on the first", ready)


def cut_off(hosts: Hosts, away: float, trials: int) -> Cut:
    """Cut the first host off until its slot is taken over and ``away`` seconds have passed.

    Meanwhile the study grows to so many trials.
    """
    place, network = hosts.place, hosts.network
    slot = about_to_be_cut(hosts)
    network.cut(1)
    cut, began = time.time(), time.monotonic()
    until("taken over", lambda: place.slots()[slot.number].attempt == 2)
    took = time.monotonic() - began
    owner = 2 if of_host(place.slots()[slot.number], 2) else 3
    harness.in_child(grow, place, trials)
    changes = watch(place, slot, end=began + away)
    network.join(1)
    joined = time.time()

    def has_new() -> bool:
        return any(of_host(each, 1) and each.number != slot.number for each in place.slots())

    changes += watch(place, slot, end=time.monotonic() + LONGEST_RETURN, met=has_new)
    back = time.time() - joined
    if not has_new():
        raise SystemExit(f"no new slot on the host that was cut off: {hosts.words(1)}")

    def ended() -> bool:
        return place.slots()[slot.number].state != "claimed"

    changes += watch(place, slot, end=time.monotonic() + 120, met=ended)
    return Cut(
        slot=slot, owner=owner, cut=cut, joined=joined, took=took, back=back, changes=changes
    )


def grow(place: Place, trials: int) -> None:
    """Add slots, as ``clrsearch run`` with more ``--trials`` does."""
    quiet_optuna()
    with open_database(StorageUrl(place.url)) as database:
        Study.open(database, harness.STUDY).grow(trials)


def watch(
    place: Place, slot: SlotRow, *, end: float, met: Callable[[], bool] = lambda: False
) -> list[float]:
    """When the checkpoint of a slot's trial is changed, in a folder that all hosts see."""
    changes: list[float] = []
    before = stat(place, slot)
    while time.monotonic() < end and not met():
        now = stat(place, slot)
        if now not in (before, None):
            changes.append(time.time())
        before = now
        time.sleep(0.1)
    return changes


def stat(place: Place, slot: SlotRow) -> tuple[int, int] | None:
    """Which file the checkpoint of a slot's trial is, in a folder that all hosts see."""
    for path in place.checkpoints.glob(f"all/*/trial-{slot.trial}.pt"):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        return found.st_ino, found.st_mtime_ns
    return None


def strays(place: Place, address: str, seen: Cut) -> list[str]:
    """What the host that was cut off has written meanwhile, or for the slot that it had lost."""
    slot = seen.slot
    number = {row["trial_id"]: row["number"] for row in ask(place.url, "SELECT * FROM trials")}
    noted = writes(place)

    def concerns(write: Write) -> bool:
        if write.place == "clrsearch_slots":
            return write.entry["number"] == slot.number
        return number.get(write.entry["trial_id"]) == slot.trial

    taken = min(
        w.at
        for w in noted
        if w.place == "clrsearch_slots" and concerns(w) and w.entry["attempt"] > slot.attempt
    )
    found = [
        f"written while cut off: {w}"
        for w in noted
        if w.host == address and seen.cut + SETTLED < w.at < seen.joined
    ]
    return found + [
        f"written for a lost slot: {w}"
        for w in noted
        if w.host == address and w.at > taken and concerns(w)
    ]


def check_cut(hosts: Hosts, seen: Cut) -> list[str]:
    """What should not have been seen of a host that was cut off."""
    place, slot = hosts.place, seen.slot
    slots = place.slots()
    last = slots[slot.number]
    found = strays(place, hosts.network.address_of(1), seen)
    if last.attempt != 2 or last.trial != slot.trial or of_host(last, 1):
        found.append(f"{slot} became {last}")
    found += [f"claimed twice: {s}" for s in slots if s.attempt > 1 and s.number != slot.number]
    if not any(of_host(each, 1) for each in slots):
        found.append(f"the host that was cut off has finished nothing: {slots}")
    ends = [at for at, host in hosts.epochs() if host == seen.owner]
    strange = [at for at in seen.changes if not any(0 <= at - end < PROMPT for end in ends)]
    return found + [f"checkpoint changed at {at}, the owner's epochs: {ends}" for at in strange]


def cells_of_cut(hosts: Hosts, seen: Cut, server: Server) -> list[object]:
    """What is told of the host that was cut off."""
    slot = seen.slot
    trained = [at for at, host in hosts.epochs() if host == 1]
    mine = [w for w in writes(hosts.place) if w.host == hosts.network.address_of(1)]
    return [
        *(f"{seen.joined - seen.cut:.1f}", f"{seen.took:.1f}"),
        slot.checkpoint,
        sum(seen.cut < at < seen.joined for at in trained),
        sum(seen.cut + SETTLED < w.at < seen.joined for w in mine),
        f"{seen.back:.1f}",
        server.sessions(hosts.network.address_of(1)),
    ]
