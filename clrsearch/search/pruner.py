"""When to stop a trial early: leniently, and only against its own family.

A cycle's peak must not be compared with another's trough, so trials are compared by the best value
that each has had so far: it does not fall back when the rate rises again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clrsearch.search.history import Record
from clrsearch.tasks import Direction

GRACE = 1 / 3  # of the horizon, before which nothing is pruned
QUORUM = 8  # trials to compare with, at least
WORST = 1 / 3  # the share of the family that is dropped


def hopeless(
    values: Mapping[int, float],
    others: Sequence[Record],
    *,
    epochs: int,
    direction: Direction,
) -> bool:
    """Whether a trial is among the worst third of its family at its latest epoch.

    ``values`` maps its epochs so far (from 1) to the metric; ``others`` are the family's other
    trials. Those that have reached the epoch count with their best value up to it, those that were
    pruned or diverged before as worse, and those that are still on their way not at all. Nothing is
    pruned before a third of the ``epochs``, nor with fewer than eight to compare with, nor at the
    last epoch, where it would save nothing.
    """
    epoch = max(values)
    if epoch < GRACE * epochs or epoch >= epochs:
        return False
    own = _best(values, epoch, direction)
    reached = [_best(other.values, epoch, direction) for other in others if other.epoch >= epoch]
    gone = sum(other.state == "pruned" and other.epoch < epoch for other in others)
    family = len(reached) + gone
    better = sum(best < own if direction == "minimize" else best > own for best in reached)
    return family >= QUORUM and better >= family - WORST * family


def _best(values: Mapping[int, float], epoch: int, direction: Direction) -> float:
    best = min if direction == "minimize" else max
    return best(value for at, value in values.items() if at <= epoch)
