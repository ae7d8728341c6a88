"""A schedule as a point: a few numbers in which schedules of all families can be compared.

Two schedules that keep the rate about as high at about the same times train about alike, whatever
family they are of and whatever their parameters are called. A momentum m multiplies the length of
a step by about 1 / (1 - m), so it is counted into the rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clrsearch.schedules import Value
from clrsearch.search.history import Record
from clrsearch.search.space import StudySpace

Array = NDArray[np.float64]

SEGMENTS = 8
LOOKS = 160  # steps at which a schedule is read, a multiple of the segments
USUAL_MOMENTUM = 0.9  # counts as no change of the rate
LOWEST = 1e-8  # of the task's own rate: below, rates are as good as zero

STARTS = (16, 8, 4, 2)  # parts of the horizon: its first 1/16, 1/8, ...

LENGTHS = np.array([22.0] * SEGMENTS + [40.0, 4.0, 1.6, 1.0, 4.0, 90.0, 6.0] + [7.0] * len(STARTS))
"""How far apart two schedules must be in each feature to have little to say of each other.

Round numbers near those that are most likely on recorded tasks (``benchmarks/replay``).
"""
FACTOR_LENGTH = 5.0
"""The same for the logarithm of a factor on the rates of a parameter group."""


class Points:
    """The points of a study's schedules; a trial's is computed once."""

    def __init__(self, space: StudySpace, lengths: Array = LENGTHS) -> None:
        self._space, self._lengths = space, lengths
        horizon = space.setting.horizon
        self._steps = np.floor((np.arange(LOOKS) + 0.5) / LOOKS * horizon)
        self._of_trial: dict[int, Array] = {}

    @property
    def features(self) -> int:
        """How many coordinates a point has."""
        return len(LENGTHS) + len(self._space.multipliers)

    def of_records(self, records: Sequence[Record]) -> Array:
        """The points of some of the search's trials, (trials, features)."""
        new = [record for record in records if record.number not in self._of_trial]
        computed = self.of([(record.family, record.params) for record in new])
        self._of_trial |= {record.number: row for record, row in zip(new, computed, strict=True)}
        rows = [self._of_trial[record.number] for record in records]
        return np.array(rows).reshape(len(records), self.features)

    def of(self, schedules: Sequence[tuple[str, Mapping[str, Value]]]) -> Array:
        """The features of schedules, of which family and values are given, over their lengths.

        A (schedules, features) array.
        """
        rates = np.empty((len(schedules), LOOKS))
        momenta = np.full((len(schedules), LOOKS), USUAL_MOMENTUM)
        for row, (family, params) in enumerate(schedules):
            rates[row], momentum = self._space.build(family, params).at(self._steps)
            if momentum is not None:
                momenta[row] = momentum
        scaled = features(rates / self._space.setting.own_rate, momenta) / self._lengths
        factors = [list(self._space.multipliers_of(params).values()) for _, params in schedules]
        shape = len(schedules), len(self._space.multipliers)
        logs = np.log(np.array(factors).reshape(shape)) / FACTOR_LENGTH
        return np.hstack([scaled, logs])


def features(rates: Array, momenta: Array) -> Array:
    """The features of schedules that are given at equally spaced steps: (schedules, 19).

    ``rates``, relative to the task's own, and ``momenta`` are (schedules, steps). Logarithms of
    the effective rate: its mean in eight segments and in the last twentieth, its peak, its mean.
    The centroid of the area under it and the place of its peak, as shares of the horizon. How far
    the logarithm climbs in all after the first quarter: a cycle comes down and goes up again. Ten
    times the mean momentum above 0.9. Logarithms of the area in the first 1/16, 1/8, 1/4 and 1/2
    of the horizon.
    """
    effective = np.maximum(rates * (1 - USUAL_MOMENTUM) / (1 - momenta), LOWEST)
    steps = effective.shape[1]
    share = (np.arange(steps) + 0.5) / steps
    segments = effective.reshape(-1, SEGMENTS, steps // SEGMENTS).mean(axis=2)
    last = effective[:, -max(steps // 20, 1) :].mean(axis=1)
    logs = np.log(effective)
    starts = [effective[:, : steps // part].sum(axis=1) / steps for part in STARTS]
    climbs = np.maximum(np.diff(logs[:, steps // 4 :], axis=1), 0.0).sum(axis=1)
    return np.column_stack(
        [
            np.log(segments),
            np.log(last),
            logs.max(axis=1),
            np.log(effective.mean(axis=1)),
            (effective * share).sum(axis=1) / effective.sum(axis=1),
            share[effective.argmax(axis=1)],
            climbs,
            10 * (momenta.mean(axis=1) - USUAL_MOMENTUM),
            *np.log(starts),
        ]
    )
