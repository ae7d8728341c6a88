"""When to stop a trial early: leniently, and only against its own family at the same epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clrsearch.search.history import Record
from clrsearch.tasks import Direction

GRACE = 1 / 3  # of the horizon, before which nothing is pruned
QUORUM = 8  # trials of the family that must have reached the epoch
WORST = 0.25  # the share that is dropped


def hopeless(
    others: Sequence[Record], value: float, *, epoch: int, epochs: int, direction: Direction
) -> bool:
    """Whether ``value`` at ``epoch`` (from 1) is among the worst quarter of the same family there.

    ``others`` are the family's other trials, which share the horizon and end at a trough; those
    that did not reach the epoch say nothing. Never before a third of the ``epochs``, nor with
    fewer than eight to compare with, nor at the last epoch, where pruning saves nothing.
    """
    if epoch < GRACE * epochs or epoch >= epochs:
        return False
    reached = [record.values[epoch] for record in others if epoch in record.values]
    if len(reached) < QUORUM:
        return False
    if direction == "minimize":
        return value > float(np.quantile(reached, 1 - WORST))
    return value < float(np.quantile(reached, WORST))
