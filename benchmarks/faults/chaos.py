"""Six workers of which one is killed every 0.2 to 0.8 seconds, then peace: the budget is exact.

    python benchmarks/faults/chaos.py [sqlite postgresql mysql]

A killed worker is replaced at once while the killing lasts, and nobody after it.
"""

from __future__ import annotations

import argparse
import random
import time

import harness
from harness import Herd
from script import command_line

WORKERS = 6
PEACE = 600.0  # seconds in which the rest must be done


def rage(herd: Herd, seconds: float, chance: random.Random) -> list[str]:
    """Kill and replace for so long; the names of the killed."""
    killed = []
    for _ in range(WORKERS):
        herd.hire()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.2, 0.8))
        for _ in herd.reap():
            herd.hire()
        killed.append(harness.choose(herd.living, chance))
        herd.kill(killed[-1])
        herd.hire()
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("databases", nargs="*", default=harness.DATABASES)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=25.0, help="how long workers are killed")
    parser.add_argument("--seed", type=int, default=0)
    asked = command_line(parser, epoch_seconds="0.3")
    plan = harness.plan(asked.trials)
    harness.header(
        *("database", "kills", "slots used up then", "slots of dead workers then"),
        *("epochs trained", "of them twice", "s of peace until all is done"),
    )
    for kind in asked.databases:
        with harness.fresh(kind) as place:
            harness.begin(place, plan)
            herd = Herd(place)
            try:
                killed = rage(herd, asked.seconds, random.Random(f"{asked.seed} {kind}"))
                calm = time.monotonic()
                then = place.slots()
                herd.wait(PEACE)
                seconds = time.monotonic() - calm
                found = herd.complaints(killed)
            finally:
                herd.close()
            orphans = sum(slot.state == "claimed" and slot.worker in killed for slot in then)
            done = sum(slot.state == "complete" for slot in then)
            epochs = len(place.epochs_trained())
            found += harness.complaints(place, plan.trials)
            harness.row(
                *(kind, len(killed), done, orphans, epochs, epochs - plan.trials * 8),
                round(seconds),
            )
            harness.require(found)


if __name__ == "__main__":
    main()
