"""When to stop a trial early: leniently, only against its own family, and only at a trough.

While the rate is high the validation metric says little of what the descent will make of it: the
schedules that win in the end are often among the worst at their peak. So a trial is judged only
where its rate is as low as it has ever been (a cycle's trough, any epoch of a constant or falling
rate), and by the best value so far, which does not fall back when the others are at their peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner

from clrsearch.search.history import Record
from clrsearch.tasks import Direction

GRACE = 1 / 3  # of the horizon, before which nothing is pruned
QUORUM = 8  # trials to compare with, at least
WORST = 1 / 3  # the share of the family that is dropped
RIVALS = 1000  # the latest trials of the family; more of them would not judge better

PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "median": lambda epochs: MedianPruner(),
    "halving": lambda epochs: SuccessiveHalvingPruner(min_resource=1),
    "hyperband": lambda epochs: HyperbandPruner(min_resource=1, max_resource=epochs),
}
"""Optuna's own pruners by name, each made from the number of epochs."""


def hopeless(
    values: Mapping[int, float],
    others: Sequence[Record],
    rates: Sequence[float],
    *,
    direction: Direction,
) -> bool:
    """Whether a trial is, at a trough of its rate, in the worst third of its family.

    ``values`` maps its epochs so far (from 1) to the metric; ``others`` are the family's other
    trials, of which the last 1,000 count; ``rates`` are the trial's own rates at the ends of all of
    its epochs, the first at index 0. Trials that have reached the epoch count with their best value
    up to it, those that were pruned or diverged before as worse, and those that are still on their
    way not at all. Nothing is pruned before a third of the epochs, nor with fewer than eight to
    compare with, nor at the last epoch, where it would save nothing.
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
