"""What a study of several lengths has found, in words and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from clrsearch.results.formatting import number
from clrsearch.results.horizon import LEVEL, Horizon
from clrsearch.tasks import sign_of


def horizon_sentences(found: Horizon) -> tuple[str, ...]:
    """What a length and a schedule are worth, and what to look at next."""
    return (*_of_lengths(found), *_of_schedules(found), *_of_rates(found), *_of_sharing(found))


def _of_lengths(found: Horizon) -> Iterator[str]:
    for short, long in pairwise(found.lengths):
        loss, half = _paired(short.scores, long.scores, sign_of(found.direction))
        verb = "costs" if loss >= 0 else "gains"
        low, high = sorted([abs(loss) - half, abs(loss) + half])
        yield (
            f"Training for {short.epochs} epochs instead of {long.epochs} {verb} "
            f"{number(abs(loss))} in {found.metric} (95 %: {number(low)} to {number(high)})."
        )


def _of_schedules(found: Horizon) -> Iterator[str]:
    most = max(found.held, default=0)
    for each in found.lengths:
        if each.held is not None and each.held > each.epochs:
            yield (
                f"A constant rate needs {each.held} epochs to match the best {each.epochs}-epoch "
                "schedule."
            )
        elif each.held is None and each.epochs <= most:
            yield (
                f"No constant rate matched the best {each.epochs}-epoch schedule within {most} "
                "epochs."
            )


def _of_rates(found: Horizon) -> Iterator[str]:
    for rate, which in ((max(found.rates), "highest"), (min(found.rates), "lowest")):
        at = [str(each.epochs) for each in found.lengths if each.rate == rate]
        if at and len(found.rates) > 1:
            yield (
                f"The {which} rate tried, {number(rate)}, is the best at {' and '.join(at)} "
                "epochs: try others with --rates."
            )


def _of_sharing(found: Horizon) -> Iterator[str]:
    if found.shared:
        yield (
            f"{found.trained} epochs trained; {found.shared} saved by training shared beginnings "
            "once."
        )


def horizon_json(found: Horizon) -> dict[str, Any]:
    """A horizon as JSON."""
    return {
        "metric": found.metric,
        "direction": found.direction,
        "lengths": [
            {
                "epochs": each.epochs,
                "trial": each.trial.number,
                "mean": each.mean,
                "low": each.low,
                "high": each.high,
                "scores": list(each.scores.values()),
                "rate": each.rate,
                "shape": each.shape,
                "decay_epochs": each.decay,
                "held_rate_needs": each.held,
            }
            for each in found.lengths
        ],
        "held": found.held,
        "epochs_trained": found.trained,
        "epochs_shared": found.shared,
        "sentences": horizon_sentences(found),
    }


def _paired(
    short: Mapping[int, float], long: Mapping[int, float], sign: float
) -> tuple[float, float]:
    """By how much the first is worse, on average over the seeds, and half the 95 % interval."""
    differences = np.array([sign * (short[seed] - long[seed]) for seed in short])
    half = float(stats.t.ppf(1 - LEVEL / 2, len(differences) - 1))
    deviation = float(differences.std(ddof=1))
    return float(differences.mean()), half * deviation / math.sqrt(len(differences))
