"""Candidate values: random draws from a family's space, and neighbours of known values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from clrsearch.schedules import Choice, Range, Space, Value

CHANGED = 0.3  # expected share of a neighbour's values that differ, at least one
STEP = 0.15  # standard deviation of a move, as a share of the range


def draw(space: Space, generator: np.random.Generator) -> dict[str, Value]:
    """Draw each parameter uniformly from its range, or log-uniformly on a log scale."""
    params: dict[str, Value] = {}
    for name, parameter in space.items():
        if parameter.applies(params):
            params[name] = _drawn(parameter.domain, generator)
    return params


def neighbour(
    params: Mapping[str, Value], space: Space, generator: np.random.Generator
) -> dict[str, Value]:
    """Perturb ``params``: move some of the numbers a little, redraw some of the choices."""
    names = list(params)
    changed = {name for name in names if generator.random() < CHANGED}
    changed.add(names[generator.integers(len(names))])
    near: dict[str, Value] = {}
    for name, parameter in space.items():
        if not parameter.applies(near):
            continue
        domain = parameter.domain
        if name not in params or (name in changed and isinstance(domain, Choice)):
            near[name] = _drawn(domain, generator)
        elif name in changed and isinstance(domain, Range):
            near[name] = _moved(domain, float(params[name]), generator)
        else:
            near[name] = params[name]
    return near


def _drawn(domain: Range | Choice, generator: np.random.Generator) -> Value:
    if isinstance(domain, Choice):
        return domain.options[generator.integers(len(domain.options))]
    return _at(domain, generator.random())


def _moved(domain: Range, value: float, generator: np.random.Generator) -> Value:
    low, high = _ends(domain)
    if low == high:
        return _at(domain, 0.0)
    place = ((math.log(value) if domain.log else value) - low) / (high - low)
    # reflect moves at the ends of the range
    reflected = abs((place + STEP * generator.standard_normal()) % 2)
    return _at(domain, min(reflected, 2 - reflected))


def _at(domain: Range, place: float) -> Value:
    """The value at position ``place`` in the range, from 0 (lower end) to 1 (upper end)."""
    low, high = _ends(domain)
    value = low + place * (high - low)
    if domain.log:
        value = math.exp(value)
    return int(domain.clip(round(value))) if domain.integer else domain.clip(value)


def _ends(domain: Range) -> tuple[float, float]:
    """The ends on the linear or log scale; integer ranges are widened by half a step."""
    reach = 0.5 if domain.integer and domain.low < domain.high else 0.0
    low, high = domain.low - reach, domain.high + reach - (1e-9 if reach else 0.0)
    return (math.log(low), math.log(high)) if domain.log else (low, high)
