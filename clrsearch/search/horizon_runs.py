"""The runs that tell how good a schedule can be at each length, for little more than the longest.

A rate is held, and for each length a decay branches off from it: what comes before is trained once.
A. Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
arXiv:2405.18392.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clrsearch.schedules import Choice, Parameter, Range, Space, Value, WarmupStableDecay
from clrsearch.search.plan import HorizonPlan, search_seed
from clrsearch.tasks import TaskFacts

EPOCHS = "epochs"
"""The value of a trial that is shorter than its study's horizon: its own number of epochs."""
FAMILY = WarmupStableDecay.family
DECAYS: Mapping[str, float] = {"1-sqrt": 0.2, "linear": 0.4}
"""The decays by shape, each with its share of a run: the one that Hägele et al. recommend, and a
longer one, which short runs may need."""
FACTORS = (1.0, 3.0, 10.0)
"""The peak rates, relative to the task's own: a rate that decays may be higher than a constant."""
WARMUP = 0.05  # as a share of the longest run ...
MOST_WARMUP = 0.2  # ... and at most this share of the shortest


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A run that is planned in advance: its family, its values and its seed."""

    family: str
    params: Mapping[str, Value]
    seed_index: int


def peak_rates(plan: HorizonPlan, facts: TaskFacts) -> tuple[float, ...]:
    """The rates that are held."""
    return plan.rates or tuple(factor * facts.base_lr for factor in FACTORS)


def count(plan: HorizonPlan) -> int:
    """The number of runs."""
    return plan.seeds * len(plan.rates or FACTORS) * len(plan.epochs) * len(DECAYS)


def planned(plan: HorizonPlan, facts: TaskFacts) -> list[Planned]:
    """The runs in their order: seed by seed, the longest with the latest decay of each rate first.

    What all others of a rate have in common with these is then there when they begin.
    """
    longest, latest = max(plan.epochs), min(DECAYS, key=DECAYS.__getitem__)
    rates = peak_rates(plan, facts)
    cells = [(rate, latest, longest) for rate in rates]
    cells += [
        (rate, shape, epochs)
        for epochs in sorted(plan.epochs)
        for rate in rates
        for shape in DECAYS
        if (shape, epochs) != (latest, longest)
    ]
    return [
        Planned(family=FAMILY, params=_params(rate, shape, epochs, plan, facts), seed_index=seed)
        for seed in seeds(plan)
        for rate, shape, epochs in cells
    ]


def seeds(plan: HorizonPlan) -> Iterator[int]:
    """The seed indices of the runs."""
    return map(search_seed, range(plan.seeds))


def held_until(params: Mapping[str, Value], facts: TaskFacts) -> int:
    """The number of epochs for which such a run holds its rate, its warm-up included."""
    horizon = _steps(int(params[EPOCHS]), facts)
    begin = horizon - round(float(params["decay_share"]) * horizon)
    return sum(end <= begin for end in facts.ends)


def horizon_space(plan: HorizonPlan, facts: TaskFacts) -> Space:
    """The ranges of the runs' values."""
    rates = peak_rates(plan, facts)
    return {
        "lr": Parameter(domain=Range(low=min(rates), high=max(rates), log=True)),
        "decay_share": Parameter(domain=Range(low=0.0, high=1.0)),
        "shape": Parameter(domain=Choice(options=tuple(DECAYS))),
        "min_ratio": Parameter(domain=Range(low=0.0, high=0.0)),
        "warmup_share": Parameter(domain=Range(low=0.0, high=1.0)),
        EPOCHS: Parameter(domain=Range(low=min(plan.epochs), high=max(plan.epochs), integer=True)),
    }


def _params(
    rate: float, shape: str, epochs: int, plan: HorizonPlan, facts: TaskFacts
) -> dict[str, Value]:
    """The values of a run; its decay begins at the end of an epoch, where others can branch off."""
    warmup = min(WARMUP * max(plan.epochs), MOST_WARMUP * min(plan.epochs))
    rise, horizon = round(warmup * facts.steps_per_epoch), _steps(epochs, facts)
    begin = max(_steps(epochs - math.ceil(DECAYS[shape] * epochs - 1e-9), facts), rise)
    return {
        "lr": rate,
        "decay_share": (horizon - begin) / horizon,
        "shape": shape,
        "min_ratio": 0.0,
        "warmup_share": rise / horizon,
        EPOCHS: epochs,
    }


def _steps(epochs: int, facts: TaskFacts) -> int:
    return round(epochs * facts.steps_per_epoch)
