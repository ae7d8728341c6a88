"""A PostgreSQL server is stopped again and again under four workers: nothing is lost or done twice.

    python benchmarks/faults/postgres_stopped.py [--cases fast:0 immediate:20]

A case is how the server is stopped (``pg_ctl -m``) and for how many seconds. It needs PostgreSQL's
programs, but no server: it starts its own.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Sequence

import harness
from harness import Herd, Place, PrivatePostgres
from script import command_line

from clrsearch.search import StudyPlan

WORKERS = 4
MOST_STOPS = {0: 8, 2: 8, 20: 3, 60: 2}
CALLS = {"next": "claim", "_fill": "begin", "_tell": "tell"}


def interrupt(
    server: PrivatePostgres, place: Place, mode: str, seconds: int, chance: random.Random
) -> list[tuple[float, float]]:
    """Stop the server at random moments while there is work; from when to when it was away."""
    away = []
    for _ in range(MOST_STOPS.get(seconds, 3)):
        time.sleep(chance.uniform(1, 4))
        if all(slot.state == "complete" for slot in place.slots()):
            break
        server.stop(mode)
        began = time.time()
        time.sleep(seconds)
        away.append((began, time.time()))
        server.start()
    return away


def check(place: Place, herd: Herd, trials: int) -> list[str]:
    """What should not have been seen."""
    found = herd.complaints([]) + harness.complaints(place, trials)
    twice = [slot for slot in place.slots() if slot.attempt > 1]
    found += [f"taken for dead: {slot}" for slot in twice]
    epochs = len(place.epochs_trained())
    if epochs != trials * 8:
        found.append(f"{epochs} epochs were trained for {trials} trials")
    return found


def waits(place: Place) -> str:
    """How often workers had to wait, by the call that the outage hit."""
    logs = "".join(path.read_text(encoding="utf-8") for path in place.folder.glob("*:*.log"))
    counts = Counter(re.findall(r"^waits in (\w+)", logs, flags=re.MULTILINE))
    return " / ".join(str(counts[name]) for name in CALLS)


def run(
    plan: StudyPlan, server: PrivatePostgres, mode: str, seconds: int, chance: random.Random
) -> Sequence[object]:
    """One study; the cells of its row."""
    with harness.temporary_folder() as folder:
        place = Place(url=server.empty_database(), folder=folder)
        harness.begin(place, plan)
        herd = Herd(place)
        began = time.monotonic()
        try:
            for _ in range(WORKERS):
                herd.hire()
            away = interrupt(server, place, mode, seconds, chance)
            herd.wait(300)
            took = time.monotonic() - began
            harness.require(check(place, herd, plan.trials))
        finally:
            herd.close()
        trained = [at for at, _ in place.epochs_trained()]
        meanwhile = sum(any(a < at < b for a, b in away) for at in trained)
        return f"{mode} {seconds} s", len(away), meanwhile, waits(place), round(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cases = ("fast:0", "fast:2", "fast:20", "fast:60", "immediate:0", "immediate:20")
    parser.add_argument("--cases", nargs="+", default=cases, metavar="MODE:SECONDS")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    asked = command_line(parser, epoch_seconds="0.5")
    plan = harness.plan(asked.trials)
    harness.header(
        *("stopped", "times", "epochs trained meanwhile"),
        *(f"waits in {' / '.join(CALLS.values())}", "s"),
    )
    with harness.private_postgres() as server:
        for case in asked.cases:
            mode, _, seconds = case.partition(":")
            chance = random.Random(f"{asked.seed} {case}")
            harness.row(*run(plan, server, mode, int(seconds), chance))


if __name__ == "__main__":
    main()
