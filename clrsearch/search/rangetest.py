"""Reading a learning-rate range test: where the loss starts to fall, and where it turns.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3:
the bounds of a cycle are the rate at which the network begins to learn and the rate at which
learning slows, becomes ragged or fails. Here a fixed rule reads them off, and they only bound a
search, never replace it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clrsearch.schedules import Range

WINDOW = 5  # rates in the running median, about a third of a decade
PLATEAU = 10  # first rates, assumed to be harmless
STARTED = 0.05  # share of the total fall at which the loss has started to fall
TURNED = 0.5  # share of the total fall that is lost again where the loss has turned
MARGIN = 2.0  # factor below the rate at which the loss has turned
LEAST_FALL = 0.01  # minimum fall, as a share of the initial loss
NOISE = 5.0  # minimum fall, in standard errors of the smoothed loss

Curves = tuple[tuple[float, ...], ...]
Array = NDArray[np.float64]


class RangeTest(BaseModel):
    """A range test and the bounds read from it.

    Attributes:
        rates: the learning rates tried.
        training: training losses over ``rates``, one curve per seed; a shorter curve diverged.
        validation: validation losses, likewise.
        base: proposed lower bound; None if the curves show none.
        maximum: proposed upper bound; None if the curves show none.
        sentence: what the curves show, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rates: tuple[float, ...]
    training: Curves
    validation: Curves
    base: float | None
    maximum: float | None
    sentence: str

    def bounds(self, base_lr: float) -> Range | None:
        """The range of rates to search: the proposed bounds, widened to include ``base_lr``.

        If the loss has not turned, the upper end is the highest rate tried. None if no rates are
        proposed.
        """
        if self.base is None:
            return None
        high = self.rates[-1] if self.maximum is None else self.maximum
        return Range(low=min(self.base, base_lr), high=max(high, base_lr), log=True)


def read_range_test(rates: Sequence[float], training: Curves, validation: Curves) -> RangeTest:
    """Read the bounds from the losses of a range test.

    Both losses are smoothed: the median over the seeds, then a running median over five rates,
    where diverged curves count as infinite. The initial loss is the median over the first ten
    rates. *Base* is the rate from which on the validation loss has fallen by 5 % of its total fall.
    *Max* is half of the highest rate at which the training or the validation loss, whichever
    tolerates more, has not yet lost half of its fall again. A fall within five standard errors, or
    of less than 1 % of the initial loss, does not count.
    """
    base, sentence = _start_of_the_fall(rates, validation)
    maximum = None
    if base is not None:
        turns = [_turn(rates, curves) for curves in (training, validation)]
        if any(turn is None for turn in turns):
            sentence += (
                f"; at {rates[-1]:.2g}, the highest rate tried, the loss has not risen again"
            )
        else:
            turn = max(turn for turn in turns if turn is not None)
            maximum = max(turn / MARGIN, base)
            sentence += f"; above {turn:.2g} the loss rises again, so {maximum:.2g} is the maximum"
    return RangeTest(
        rates=tuple(rates),
        training=training,
        validation=validation,
        base=base,
        maximum=maximum,
        sentence=f"{sentence}.",
    )


def padded(curves: Curves, points: int, filling: float) -> Array:
    """Curves as a (seeds, points) array, padded with ``filling``."""
    table = np.full((len(curves), points), filling)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = curve
    return table


def smoothed(curves: Curves, points: int) -> Array:
    """Running median over rates of the median over seeds; see :func:`read_range_test`."""
    middle = np.median(padded(curves, points, np.inf), axis=0)
    reach = WINDOW // 2
    return np.array(
        [np.median(middle[max(0, p - reach) : p + reach + 1]) for p in range(points)],
        dtype=np.float64,
    )


def _start_of_the_fall(rates: Sequence[float], validation: Curves) -> tuple[float | None, str]:
    """The rate where the loss starts to fall, or None, and a sentence that says so."""
    loss = smoothed(validation, len(rates))
    start, lowest = _start_and_lowest(loss)
    if not math.isfinite(start):
        return None, (
            f"The loss diverges even at {rates[0]:.2g}, the lowest rate tried; no rates are "
            "proposed"
        )
    fall = start - float(loss[lowest])
    least = max(LEAST_FALL * abs(start), NOISE * _standard_error(validation))
    if not fall > least:
        return None, (
            f"The validation loss is flat: it falls from {start:.3g} by at most "
            f"{max(fall, 0):.2g}, and a fall below {least:.2g} may be noise; no rates are proposed"
        )
    above = np.flatnonzero(loss[: lowest + 1] > start - STARTED * fall)
    base = float(rates[above[-1] + 1 if len(above) else 0])
    return base, f"The validation loss starts to fall at a rate of {base:.2g}"


def _turn(rates: Sequence[float], curves: Curves) -> float | None:
    """The highest rate before half of the fall is lost again; None if that never happens."""
    loss = smoothed(curves, len(rates))
    start, lowest = _start_and_lowest(loss)
    lost = loss[lowest] + TURNED * (start - loss[lowest])
    after = np.flatnonzero(loss[lowest:] > lost)
    return float(rates[lowest + after[0] - 1]) if len(after) else None


def _start_and_lowest(loss: Array) -> tuple[float, int]:
    """The initial loss, and the index of the lowest loss after it."""
    return float(np.median(loss[:PLATEAU])), PLATEAU + int(np.argmin(loss[PLATEAU:]))


def _standard_error(curves: Curves) -> float:
    """Standard error of the smoothed loss, from second differences, which cancel a trend.

    The standard error of a median is 1.25 times that of the mean.
    """
    deviations = []
    for curve in curves:
        bends = np.diff(np.array(curve[: len(curve) // 2]), n=2)
        if len(bends):
            deviations.append(math.sqrt(float(np.mean(bends**2)) / 6))
    if not deviations:
        return math.inf
    return 1.25 * float(np.median(deviations)) / math.sqrt(WINDOW * len(curves))
