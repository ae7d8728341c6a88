"""Schedules as feature vectors: a few numbers that make schedules of all families comparable.

Two schedules that keep the rate about as high at about the same times train about alike, regardless
of their families and parameter names. Momentum m multiplies the step length by about 1 / (1 - m),
so it is folded into an effective rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clrsearch.schedules import ScheduleFree, Value, averaging_of
from clrsearch.search.history import Record
from clrsearch.search.space import StudySpace

Array = NDArray[np.float64]

SEGMENTS = 8
LOOKS = 160  # steps at which a schedule is sampled, a multiple of SEGMENTS
USUAL_MOMENTUM = 0.9  # leaves the effective rate unchanged
LOWEST = 1e-8  # floor of effective rates, relative to the task's own rate

STARTS = (16, 8, 4, 2)  # fractions of the horizon: its first 1/16, 1/8, ...

LENGTHS = np.array([22.0] * SEGMENTS + [40.0, 4.0, 1.6, 1.0, 4.0, 90.0, 6.0] + [7.0] * len(STARTS))
"""Length scale of each feature: schedules further apart than this say little about each other.

Round numbers near the most likely values on recorded tasks (``benchmarks/replay``).
"""
APART = 2.0
"""Distance between a schedule and the same rates under Schedule-Free, if its beta is 0.9: what is
known of one says little of the other. A guess, as few studies search both."""
BETA_LENGTH = 0.2
"""Length scale of beta: its whole range, 0.9 to 0.98, is two fifths of it. A guess as well."""
FACTOR_LENGTH = 5.0
"""Length scale for the logarithm of a parameter group's rate factor."""


class Points:
    """The feature points of a study's schedules; cached per trial."""

    def __init__(self, space: StudySpace, lengths: Array = LENGTHS) -> None:
        self._space, self._lengths = space, lengths
        self._averages = ScheduleFree.family in space.families
        horizon = space.setting.horizon
        self._steps = np.floor((np.arange(LOOKS) + 0.5) / LOOKS * horizon)
        self._of_trial: dict[int, Array] = {}

    @property
    def features(self) -> int:
        """Number of coordinates of a point."""
        return len(LENGTHS) + len(self._space.multipliers) + self._averages

    def of_records(self, records: Sequence[Record]) -> Array:
        """Points of some of the search's trials, (trials, features)."""
        new = [record for record in records if record.number not in self._of_trial]
        computed = self.of([(record.family, record.params) for record in new])
        self._of_trial |= {record.number: row for record, row in zip(new, computed, strict=True)}
        rows = [self._of_trial[record.number] for record in records]
        return np.array(rows).reshape(len(records), self.features)

    def of(self, schedules: Sequence[tuple[str, Mapping[str, Value]]]) -> Array:
        """Points of (family, values) pairs: features over length scales, (schedules, features).

        The last coordinate sets Schedule-Free apart, if the study searches it.
        """
        rates = np.empty((len(schedules), LOOKS))
        momenta = np.full((len(schedules), LOOKS), USUAL_MOMENTUM)
        averaging = np.zeros((len(schedules), int(self._averages)))
        for row, (family, params) in enumerate(schedules):
            schedule = self._space.build(family, params)
            rates[row], momentum = schedule.at(self._steps)
            if momentum is not None:
                momenta[row] = momentum
            if (beta := averaging_of(schedule)) is not None:
                averaging[row] = APART + (beta - USUAL_MOMENTUM) / BETA_LENGTH
        scaled = features(rates / self._space.setting.base_lr, momenta) / self._lengths
        factors = [list(self._space.multipliers_of(params).values()) for _, params in schedules]
        shape = len(schedules), len(self._space.multipliers)
        logs = np.log(np.array(factors).reshape(shape)) / FACTOR_LENGTH
        return np.hstack([scaled, logs, averaging])


def features(rates: Array, momenta: Array) -> Array:
    """Features of schedules sampled at equally spaced steps: (schedules, 19).

    In order: logarithms of the effective rate's mean in eight segments and in the last twentieth,
    of its peak and of its overall mean; the centroid of the area under the rate and the position of
    its peak, as shares of the horizon; the total climb of the log rate after the first quarter
    (cycles climb again after each descent); ten times the mean momentum above 0.9; logarithms of
    the area in the first 1/16, 1/8, 1/4 and 1/2 of the horizon.

    Args:
        rates: learning rates relative to the task's own, (schedules, steps).
        momenta: momenta, (schedules, steps).
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
