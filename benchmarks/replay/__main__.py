"""Play strategies over the tables, and print what they regret.

From `benchmarks/`:

    python -m replay [STRATEGY ...] [--repetitions 20] [--runs 100 33] [--store FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import optuna

from replay import before, fit, now, stock, strategies
from replay.play import Game, Modelled, Pool
from replay.record import space_of
from replay.report import report
from replay.strategies import Strategy
from replay.tables import read
from replay.tasks import EVERY, TASKS

KINDS = {"pool": Pool, "surface": Modelled}
STRATEGIES: dict[str, Strategy] = {
    "now": now.strategy(),
    "now, lengths of the other tasks": now.strategy(lengths=fit.without),
    "now, one seed": now.strategy(seeds=1),
    "now, 8 lanes": now.strategy(lanes=8),
    "now, 16 lanes": now.strategy(lanes=16),
    "now, never pruned": now.strategy(pruner="none"),
    "before": before.all_families,
    "before, cyclic alone": before.cyclic_alone,
    "random, 3 confirmed": strategies.random,
    "Optuna TPE + Median": stock.strategy(stock.tpe, stock.median, confirm=False),
    "Optuna TPE + Median, 3 confirmed": stock.strategy(stock.tpe, stock.median, confirm=True),
    "Optuna TPE + Hyperband": stock.strategy(stock.tpe, stock.hyperband, confirm=False),
    "Optuna TPE + Hyperband, 3 confirmed": stock.strategy(stock.tpe, stock.hyperband, confirm=True),
    "Optuna TPE": stock.strategy(stock.tpe, stock.never, confirm=False),
    "Optuna TPE, 3 confirmed": stock.strategy(stock.tpe, stock.never, confirm=True),
    "Optuna joint TPE": stock.strategy(stock.joint_tpe, stock.never, confirm=False),
    "Optuna joint TPE, 3 confirmed": stock.strategy(stock.joint_tpe, stock.never, confirm=True),
    "Optuna GP": stock.strategy(stock.gaussian_process, stock.never, confirm=False),
    "Optuna GP, 3 confirmed": stock.strategy(stock.gaussian_process, stock.never, confirm=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="*", default=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 33])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--store", type=Path, help="regrets are read from here, and kept here")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    regrets: dict[str, list[float]] = {}
    if asked.store and asked.store.exists():
        regrets = json.loads(asked.store.read_text())
    for task in asked.tasks:
        space = space_of(EVERY[task]())
        for kind in asked.kinds:
            played = KINDS[kind](read(task), space)
            for name in asked.strategies:
                for runs in asked.runs:
                    key = f"{kind}|{runs}|{name}|{task}"
                    found = regrets.setdefault(key, [])
                    begun = time.monotonic()
                    for repetition in range(len(found), asked.repetitions):
                        game = Game(played, runs=runs, repetition=repetition)
                        rng = np.random.default_rng((repetition, runs))
                        found.append(game.regret(STRATEGIES[name](game, rng)))
                    print(
                        f"{key}: {np.mean(found):.3f} ({time.monotonic() - begun:.1f} s)",
                        flush=True,
                    )
                    if asked.store:
                        asked.store.write_text(json.dumps(regrets))
    print(report(regrets, asked.tasks, asked.repetitions))


if __name__ == "__main__":
    main()
