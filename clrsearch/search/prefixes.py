"""Where schedules part: up to there, runs of one seed are the same, and are trained once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clrsearch.schedules import Trace


def parting_intervals(trace: Trace, others: Iterable[Trace], ends: Sequence[int]) -> set[int]:
    """The intervals, from 1, at whose ends others can go on from a run of ``trace``.

    For each of the ``others`` it is the last one within which the traces are the same; none if that
    is the last of all, or if they differ in the first. ``ends`` are the optimizer steps taken when
    each interval ends.
    """
    found = (_intervals_until(_first_difference(trace, other), ends) for other in others)
    return {interval for interval in found if 0 < interval < len(ends)}


def held(trace: Trace, ends: Sequence[int]) -> set[int]:
    """The intervals, from 1, at whose ends the rate has been at its peak and was held there.

    From these, schedules can go on that hold the same rate and then fall in some other way. The
    last interval is none of them; none is if Schedule-Free trains, for its rate never falls.
    """
    if trace.averaging is not None:
        return set()
    rates = trace.rates[0]
    first = int(rates.argmax())
    changes = np.flatnonzero(rates[first:] != rates[first])
    until = first + int(changes[0]) if len(changes) else len(rates)
    last = min(_intervals_until(until, ends), len(ends) - 1)
    return {interval for interval in range(1, last + 1) if ends[interval - 1] > first + 1}


def _first_difference(one: Trace, other: Trace) -> int:
    """The first step at which the rates or momenta of two traces differ; T if none does."""
    if (one.momenta is None) != (other.momenta is None) or one.averaging != other.averaging:
        return 0
    differ = (one.rates != other.rates).any(axis=0)
    if one.momenta is not None:
        differ |= (one.momenta != other.momenta).any(axis=0)
    steps = np.flatnonzero(differ)
    return int(steps[0]) if len(steps) else one.rates.shape[1]


def _intervals_until(step: int, ends: Sequence[int]) -> int:
    """The number of intervals that have ended when so many steps are taken."""
    return int(np.searchsorted(np.asarray(ends), step, side="right"))
