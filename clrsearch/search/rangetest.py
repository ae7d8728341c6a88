"""What a learning-rate range test says: where the loss starts to fall, and where it has turned.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3:
the bounds of a cycle are the rate at which the network begins to learn and the one at which
learning slows, becomes ragged or fails. Read off by a rule here, and taken as the bounds of a
search, never as its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clrsearch.schedules import Range

WINDOW = 5  # rates of the running median, about a third of a decade
PLATEAU = 10  # rates at the beginning that are taken for harmless
STARTED = 0.05  # of the whole fall: from there on the loss falls
TURNED = 0.5  # of the whole fall is lost again: from there on it has turned
MARGIN = 2.0  # below the rate at which it has turned
LEAST_FALL = 0.01  # of the loss at the start: less is none
NOISE = 5.0  # standard errors of the smoothed loss: less than that is no fall either

Curves = tuple[tuple[float, ...], ...]
Array = NDArray[np.float64]


class RangeTest(BaseModel):
    """A range test and what was read off it.

    ``training`` and ``validation`` hold one curve of losses per seed, over the ``rates``; a curve
    that is shorter has diverged. ``base`` and ``maximum`` are the proposed bounds, None where the
    curves do not show one; ``sentence`` says what they show.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rates: tuple[float, ...]
    training: Curves
    validation: Curves
    base: float | None
    maximum: float | None
    sentence: str

    def bounds(self, own_rate: float) -> Range | None:
        """The rates to search: the proposed ones, and the task's own if it lies outside of them.

        Where the loss has not turned, the highest rate that was tried is the top; None where no
        rates are proposed.
        """
        if self.base is None:
            return None
        high = self.rates[-1] if self.maximum is None else self.maximum
        return Range(low=min(self.base, own_rate), high=max(high, own_rate), log=True)


def read_range_test(rates: Sequence[float], training: Curves, validation: Curves) -> RangeTest:
    """Read the bounds off the losses of a range test.

    Of both losses, the median over the seeds is taken, and of that the running median of five
    rates; a curve that has diverged counts as infinite. The start is the median of the first ten.
    *Base* is the rate from which on the validation loss has fallen by 5 % of its whole fall. *Max*
    is half of the highest rate at which the training or the validation loss, whichever bears more,
    has not yet lost half of its fall again. A fall within five standard errors, or of less than 1 %
    of the start, is none.
    """
    base, sentence = _start_of_the_fall(rates, validation)
    maximum = None
    if base is not None:
        turns = [_turn(rates, curves) for curves in (training, validation)]
        if any(turn is None for turn in turns):
            sentence += f"; at {rates[-1]:.2g}, the highest tried, the loss has not turned"
        else:
            turn = max(turn for turn in turns if turn is not None)
            maximum = max(turn / MARGIN, base)
            sentence += f"; above {turn:.2g} the loss has turned, and {maximum:.2g} is the top"
    return RangeTest(
        rates=tuple(rates),
        training=training,
        validation=validation,
        base=base,
        maximum=maximum,
        sentence=f"{sentence}.",
    )


def padded(curves: Curves, points: int, filling: float) -> Array:
    """Curves as a matrix of (seeds, points), with the ``filling`` behind their ends."""
    table = np.full((len(curves), points), filling)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = curve
    return table


def smoothed(curves: Curves, points: int) -> Array:
    """The running median of the seeds' median, at each of so many rates; see the reading's rule."""
    middle = np.median(padded(curves, points, np.inf), axis=0)
    reach = WINDOW // 2
    return np.array(
        [np.median(middle[max(0, p - reach) : p + reach + 1]) for p in range(points)],
        dtype=np.float64,
    )


def _start_of_the_fall(rates: Sequence[float], validation: Curves) -> tuple[float | None, str]:
    """The rate where the loss starts to fall, if it does, and how to say so."""
    loss = smoothed(validation, len(rates))
    start, lowest = _start_and_lowest(loss)
    if not math.isfinite(start):
        return None, (
            f"The loss diverges at {rates[0]:.2g} already, the lowest rate tried; no rates are "
            "proposed"
        )
    fall = start - float(loss[lowest])
    least = max(LEAST_FALL * abs(start), NOISE * _standard_error(validation))
    if not fall > least:
        return None, (
            f"The validation loss is flat: from {start:.3g} it falls by {max(fall, 0):.2g} at "
            f"most, and less than {least:.2g} may be chance; no rates are proposed"
        )
    above = np.flatnonzero(loss[: lowest + 1] > start - STARTED * fall)
    base = float(rates[above[-1] + 1 if len(above) else 0])
    return base, f"The validation loss starts to fall at a rate of {base:.2g}"


def _turn(rates: Sequence[float], curves: Curves) -> float | None:
    """The highest rate before half of the fall is lost again; None where that never happens."""
    loss = smoothed(curves, len(rates))
    start, lowest = _start_and_lowest(loss)
    lost = loss[lowest] + TURNED * (start - loss[lowest])
    after = np.flatnonzero(loss[lowest:] > lost)
    return float(rates[lowest + after[0] - 1]) if len(after) else None


def _start_and_lowest(loss: Array) -> tuple[float, int]:
    """The loss at the start, and the index of the lowest behind it."""
    return float(np.median(loss[:PLATEAU])), PLATEAU + int(np.argmin(loss[PLATEAU:]))


def _standard_error(curves: Curves) -> float:
    """Of the smoothed loss: from the second differences of each seed's, which a trend leaves out.

    A median of n values is 1.25 times as uncertain as their mean.
    """
    deviations = []
    for curve in curves:
        bends = np.diff(np.array(curve[: len(curve) // 2]), n=2)
        if len(bends):
            deviations.append(math.sqrt(float(np.mean(bends**2)) / 6))
    if not deviations:
        return math.inf
    return 1.25 * float(np.median(deviations)) / math.sqrt(WINDOW * len(curves))
