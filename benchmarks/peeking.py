"""How often does a verdict that is looked at after every seed say too much, and when enough?

Scores are drawn as schedule + seed + noise, and looked at after every seed up to 100. Of equal
schedules: how often is any called beaten at any look, and how often is one left as sole winner?
Where one is ahead of the others, which are equal: after how many seeds is it the sole winner? All
in deviations of the noise. The seeds' own effect has a deviation of 0, 1 and 2 in turn.

    python benchmarks/peeking.py --draws 2000
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from clrsearch.search.anytime_tests import LEVEL, among_the_best

LOOKS = 100
SCHEDULES = (2, 3, 6, 11)
AHEAD = (1, 2, 3)
BUDGETS = (10, 20, 40)  # seeds of every schedule

Table = NDArray[np.float64]  # (schedules, seeds)


def drawn(rng: np.random.Generator, schedules: int, *, ahead: float, seed_effect: float) -> Table:
    """Scores of which the first schedule's are better."""
    table = rng.normal(size=(schedules, LOOKS)) + seed_effect * rng.normal(size=LOOKS)
    table[0] -= ahead
    return table


def beaten(table: Table) -> NDArray[np.bool_]:
    """Who is called beaten at the last look: that is who has been at any."""
    return among_the_best(table) <= LEVEL


def false_rates(schedules: int, draws: int) -> tuple[float, float]:
    """The shares of draws of equal schedules with one beaten, and with a sole winner."""
    rng = np.random.default_rng(schedules)
    counts = np.array(
        [
            beaten(drawn(rng, schedules, ahead=0, seed_effect=draw % 3)).sum()
            for draw in range(draws)
        ]
    )
    return float((counts > 0).mean()), float((counts >= schedules - 1).mean())


def first_win(table: Table) -> float:
    """After how many seeds the first schedule has beaten all others; infinity if it never has."""

    def wins(seeds: int) -> bool:
        found = beaten(table[:, :seeds])
        return bool(found[1:].all() and not found[0])

    low, high = 1, LOOKS
    if not wins(high):
        return np.inf
    while high - low > 1:  # it never loses again what it has won
        middle = (low + high) // 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print(f"| equal schedules | any is beaten, {LOOKS} looks | sole winner, {LOOKS} looks |")
    print("|---|---|---|")
    worst = 0.0
    for schedules in SCHEDULES:
        any_beaten, winner = false_rates(schedules, draws)
        worst = max(worst, any_beaten)
        print(f"| {schedules} | {any_beaten:.4f} | {winner:.4f} |", flush=True)
    budgets = "".join(f" by {seeds} |" for seeds in BUDGETS)
    print(f"\n| schedules | ahead, noise sd | sole winner: median seeds |{budgets}")
    print("|---|---|---|" + "---|" * len(BUDGETS))
    for schedules in SCHEDULES:
        for ahead in AHEAD:
            rng = np.random.default_rng((schedules, ahead))
            wins = np.array(
                [
                    first_win(drawn(rng, schedules, ahead=ahead, seed_effect=draw % 3))
                    for draw in range(draws // 10)
                ]
            )
            median = f"{np.median(wins):.0f}" if np.isfinite(np.median(wins)) else f"over {LOOKS}"
            shares = "".join(f" {(wins <= seeds).mean():.2f} |" for seeds in BUDGETS)
            print(f"| {schedules} | {ahead} | {median} |{shares}", flush=True)
    if worst > LEVEL:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
