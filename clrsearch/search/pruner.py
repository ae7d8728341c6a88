"""Lenient pruning: compare a trial only with its own family, and only at a trough of its rate.

At a high learning rate the validation metric says little about the final score: schedules that win
in the end are often among the worst at their peak. So a trial is judged only where its rate is as
low as it has ever been (a cycle's trough, or any epoch of a constant or falling rate), and by its
best value so far, which does not degrade while other trials are at their peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner

from clrsearch.search.history import Record
from clrsearch.tasks import Direction

GRACE = 1 / 3  # share of the horizon before which nothing is pruned
QUORUM = 8  # minimum number of trials to compare with
WORST = 1 / 3  # share of the family that is pruned
RIVALS = 1000  # latest trials of the family to compare with

PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: MedianPruner(),
    "halving": lambda epochs: SuccessiveHalvingPruner(min_resource=1),
    "hyperband": lambda epochs: HyperbandPruner(min_resource=1, max_resource=epochs),
}
"""Optuna's pruners by name, each a factory taking the number of epochs."""


def hopeless(
    values: Mapping[int, float],
    others: Sequence[Record],
    rates: Sequence[float],
    *,
    direction: Direction,
) -> bool:
    """Whether a trial, at a trough of its rate, is in the worst third of its family.

    Trials that reached the epoch count with their best value up to it, those pruned or diverged
    before it as worse, and those still running before it not at all. Nothing is pruned in the first
    third of the epochs, with fewer than eight trials to compare with, or at the last epoch.

    Args:
        values: the trial's metric by epoch so far, from 1.
        others: the family's other trials; only the last 1,000 count.
        rates: the trial's learning rates at the ends of all its epochs, the first at index 0.
        direction: whether the metric is minimized or maximized.
    """
    epoch, epochs = max(values), len(rates)
    if epoch < GRACE * epochs or epoch >= epochs or not _at_a_trough(rates, epoch):
        return False
    others = others[-RIVALS:]
    own = _best(values, epoch, direction)
    reached = [_best(other.values, epoch, direction) for other in others if other.epoch >= epoch]
    gone = sum(other.state == "pruned" and other.epoch < epoch for other in others)
    family = len(reached) + gone
    better = sum(best < own if direction == "minimize" else best > own for best in reached)
    return family >= QUORUM and better >= family - WORST * family


def _at_a_trough(rates: Sequence[float], epoch: int) -> bool:
    return rates[epoch - 1] <= min(rates[:epoch]) * (1 + 1e-9)


def _best(values: Mapping[int, float], epoch: int, direction: Direction) -> float:
    best = min if direction == "minimize" else max
    return best(value for at, value in values.items() if at <= epoch)
