"""When a search that ends by itself (``--trials auto``) ends, and what it regrets then.

From `benchmarks/`: `python -m replay.settled [TASK ...] [--repetitions 2]`. Prints for each search
after how many trials it ended, and the regret of the schedule that the surrogate expects to be the
best then and after so many trials; there is no confirmation.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from clrsearch.search import LOT, StudyPlan, beliefs
from clrsearch.search.settling import is_settled
from clrsearch.search.trace_features import LENGTHS
from replay.now import Search
from replay.play import Game, Modelled
from replay.record import space_of
from replay.tables import read
from replay.tasks import EVERY

MOST = 140  # trials
LOOKED_AT = (50, 75, 100, MOST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(EVERY), metavar="TASK")
    parser.add_argument("--repetitions", type=int, default=2)
    asked = parser.parse_args()
    rows = []
    for name in asked.tasks:
        played = Modelled(read(name), space_of(EVERY[name]()))
        for repetition in range(asked.repetitions):
            found = list(searched(Game(played, runs=MOST + 50, repetition=repetition), repetition))
            ended, regret = next(
                ((trials, regret) for trials, settled, regret in found if settled),
                (MOST, found[-1][2]),
            )
            at = {trials: regret for trials, _, regret in found}
            rows.append([ended, regret, *(at[trials] for trials in LOOKED_AT)])
            print(name, repetition, *(f"{each:.3f}" for each in rows[-1]), flush=True)
    print("mean", *(f"{each:.4f}" for each in np.mean(rows, axis=0)))


def searched(game: Game, repetition: int) -> Iterator[tuple[int, bool, float]]:
    """After every lot: the number of trials, whether the search is settled, and the regret."""
    plan = StudyPlan(trials=100)
    search = Search(game, plan, np.random.default_rng((repetition, 100)), LENGTHS, 1)
    met: Counter[str] = Counter()
    labels = plan.model_copy(update={"trials": MOST}).labels(9)
    for trials, label in enumerate(labels, start=1):
        search._run(search._begin(label, met[label], met[label] % plan.seeds))
        met[label] += 1
        if trials % LOT == 0 and trials >= LOOKED_AT[0]:
            believed = beliefs(search.log.records, (), search.searched)
            best = min(believed, key=lambda number: believed[number].mean)
            settled = is_settled(search.log.records, search.searched)
            yield trials, settled, game.regret(search.log.schedules[best])


if __name__ == "__main__":
    main()
