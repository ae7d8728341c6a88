"""Workers are killed again and again: budget, numbers and curves are those of an undisturbed study.

    python benchmarks/faults/kills.py [sqlite postgresql mysql] [--through fork run] [--every 3]

``fork``: four workers that this script forks, so that a dead one's slot waits for its lease.
``run``: the children of ``clrsearch run --workers 4``, which replaces them itself; only those that
hold a slot are killed, for the others are busy with their imports: three deaths there in a row, and
their post is given up.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import harness
from harness import Herd, Place, SlotRow
from script import command_line

PLAN = harness.plan(16)
WORKERS = 4
LIMIT = 900.0  # seconds for one study, which is stuck after that


@dataclass
class Kill:
    """A killed worker, and the slot that it held, if any."""

    worker: str
    at: float
    held: SlotRow | None
    taken_over: float | None = None  # seconds until another worker had claimed its slot


def note_takeovers(kills: list[Kill], slots: list[SlotRow]) -> None:
    """Date those kills whose slots have been claimed anew since the last look."""
    for kill in kills:
        if (
            kill.held
            and kill.taken_over is None
            and slots[kill.held.number].attempt > kill.held.attempt
        ):
            kill.taken_over = time.monotonic() - kill.at


def disturb(
    place: Place, every: float, kill: Callable[[], str | None], look: Callable[[], bool]
) -> list[Kill]:
    """Kill a worker every so many seconds until all slots are used up, or ``look`` says to end."""
    kills: list[Kill] = []
    began = time.monotonic()
    due = began + every
    while look() and time.monotonic() - began < LIMIT:
        slots = place.slots()
        note_takeovers(kills, slots)
        if slots and all(slot.state not in ("open", "claimed") for slot in slots):
            break
        if time.monotonic() >= due:
            due = max(due + every, time.monotonic())
            killed = kill()
            if killed is not None:
                at = time.monotonic()
                held = [s for s in place.slots() if s.worker == killed and s.state == "claimed"]
                kills.append(Kill(killed, at, held[0] if held else None))
        time.sleep(0.1)
    return kills


def through_fork(place: Place, every: float, chance: random.Random) -> tuple[list[Kill], list[str]]:
    """Forked workers; whoever is killed or has left is replaced at once."""
    harness.begin(place, PLAN)
    herd = Herd(place)

    def fill() -> bool:
        herd.reap()
        while len(herd.living) < WORKERS:
            herd.hire()
        return True

    def kill() -> str:
        name = harness.choose(herd.living, chance)
        herd.kill(name)
        herd.hire()
        return name

    try:
        kills = disturb(place, every, kill, fill)
        herd.wait(60)
        return kills, herd.complaints(kill.worker for kill in kills)
    finally:
        herd.close()


def through_run(place: Place, every: float, chance: random.Random) -> tuple[list[Kill], list[str]]:
    """The command, whose worker children are killed at random."""
    harness.count_epochs(place)
    with (place.folder / "run.log").open("w+") as log:
        run = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "clrsearch",
                    "run",
                    "--no-confirm",
                    "--name",
                    harness.STUDY,
                ),
                *("--task", harness.TASK, "--trials", str(PLAN.trials), "--set", "pruner=none"),
                *("--workers", str(WORKERS), "--checkpoint-seconds", "0", "--device", "cpu"),
                *("--storage", place.url, "--checkpoint-dir", str(place.checkpoints)),
            ],
            cwd=harness.TASKS,
            stdout=log,
            stderr=log,
        )

        def kill() -> str | None:
            children = worker_children(run.pid)
            working = {s.worker for s in place.slots() if s.state == "claimed"} & children.keys()
            if not working:
                return None
            name = harness.choose(working, chance)
            os.kill(children[name], signal.SIGKILL)
            return name

        try:
            kills = disturb(place, every, kill, lambda: run.poll() is None)
            code = run.wait(60)
        finally:
            run.kill()
        log.seek(0)
        return kills, [f"clrsearch run ended with {code}: {log.read()[-3000:]}"] if code else []


def worker_children(parent: int) -> dict[str, int]:
    """The process of each worker that a process has started, by the worker's name."""
    listed = subprocess.run(
        ["pgrep", "-P", str(parent), "-a"], capture_output=True, text=True, check=False
    )
    found = {}
    for line in listed.stdout.splitlines():
        pid, *arguments = line.split()
        if "--worker-name" in arguments:
            found[arguments[arguments.index("--worker-name") + 1]] = int(pid)
    return found


def report(place: Place, kills: list[Kill]) -> tuple[list[str], list[str]]:
    """The cells of a row, and what should not have been seen."""
    slots = place.slots()
    holding = [kill for kill in kills if kill.held]
    begun = [kill.held for kill in holding if kill.held and kill.held.trial is not None]
    lost = [held for held in begun if slots[held.number].trial != held.trial]
    epochs = len(place.epochs_trained())
    twice = epochs - len(slots) * 8
    found = [f"gone on with under another number: {held}" for held in lost]
    if twice > len(holding):
        found.append(f"{twice} epochs were repeated after {len(holding)} kills")
    missing = [kill for kill in holding if kill.taken_over is None]
    found += [f"never taken over: {kill}" for kill in missing]
    cells = (
        *(len(kills), len(holding), len(begun) - len(lost), max(slot.attempt for slot in slots)),
        *(epochs, twice, harness.spread([k.taken_over for k in holding if k.taken_over])),
    )
    return [str(cell) for cell in cells], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("databases", nargs="*", default=harness.DATABASES)
    parser.add_argument("--through", nargs="+", default=["fork", "run"], choices=["fork", "run"])
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    asked = command_line(parser, epoch_seconds="1")
    harness.header(
        *("workers", "database", "kills", "of them with a slot", "trials gone on with"),
        *("most attempts at a slot", "epochs trained", "of them twice"),
        *("s to the takeover: least / median / most", "s"),
    )
    ways = {"fork": through_fork, "run": through_run}
    for way in asked.through:
        for kind in asked.databases:
            chance = random.Random(f"{asked.seed} {way} {kind}")
            with harness.fresh(kind) as place:
                began = time.monotonic()
                kills, found = ways[way](place, asked.every, chance)
                seconds = time.monotonic() - began
                cells, surprises = report(place, kills)
                found += surprises + harness.complaints(place, PLAN.trials)
                harness.row(way, kind, *cells, round(seconds))
                harness.require(found)


if __name__ == "__main__":
    main()
