"""Few starts for many schedules: those that hold their rate can share what comes before their fall.

A start is the peak rate, the warm-up and the factors on the rates of parameter groups. Trials of
one seed that have it in common train it once, and so cost what they differ in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clrsearch.schedules import Range, Space, Value
from clrsearch.search.history import Record
from clrsearch.search.plan import HOLDING, StudyPlan, turn_of
from clrsearch.search.space import GROUPS

OPENED_BY = 1 / 2
"""The share of a study's trials by which all starts have been chosen: late ones are better, for
more is known, but fewer trials share them."""

Start = Mapping[str, Value]


def start_of(family: str, params: Mapping[str, Value]) -> dict[str, Value] | None:
    """The values of a schedule's start; None if its family does not hold its rate."""
    if family not in HOLDING:
        return None
    groups = {name: value for name, value in params.items() if name.startswith(GROUPS)}
    return {"lr": params["lr"], "warmup_share": params.get("warmup_share", 0.0), **groups}


def known_starts(records: Sequence[Record], seed_index: int) -> list[Start]:
    """The different starts of the trials of one seed, in the order of their numbers."""
    found: list[Start] = []
    for record in records:
        start = start_of(record.family, record.params)
        if record.seed_index == seed_index and start is not None and start not in found:
            found.append(start)
    return found


def may_open(plan: StudyPlan, records: Sequence[Record], seed_index: int) -> bool:
    """Whether a trial of this seed may have a start that no other trial has.

    The plan's ``trunks`` are shared equally among the seeds, and opened one after the other;
    workers that begin at the same time may open a few more.
    """
    if plan.trunks is None:
        return True
    most = plan.trunks // plan.seeds + (turn_of(seed_index) < plan.trunks % plan.seeds)
    begun = sum(record.seed_index == seed_index for record in records)
    due = 1 + int(begun * most * plan.seeds / (OPENED_BY * plan.trials))
    return len(known_starts(records, seed_index)) < min(most, due)


def with_start(
    family: str,
    params: Mapping[str, Value],
    known: Sequence[Start],
    space: Space,
    generator: np.random.Generator,
) -> Mapping[str, Value]:
    """The values with one of the ``known`` starts in place of their own, drawn at random.

    It has to lie in the family's ``space``, and a constant rate can only take one without a
    warm-up. Values of families that do not hold their rate stay as they are, and so do those that
    none of the starts fits.
    """
    if start_of(family, params) is None:
        return params
    fitting = [each for each in known if _fits(each, space)]
    if not fitting:
        return params
    start = fitting[generator.integers(len(fitting))]
    return {name: start.get(name, value) for name, value in params.items()}


def _fits(start: Start, space: Space) -> bool:
    """Whether schedules of this space can have the start."""
    if "warmup_share" not in space and start["warmup_share"]:
        return False
    for name, value in start.items():
        domain = space[name].domain if name in space else None
        if isinstance(domain, Range) and domain.clip(float(value)) != value:
            return False
    return True
