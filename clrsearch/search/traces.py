"""Deduplication of schedules: those with the same rates and momenta are the same schedule.

With a single cycle, for example, ``triangular`` equals ``triangular2``. Traces are compared at a
few steps first, and in full only if they agree there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from clrsearch.schedules import Schedule, Trace, Value, averaging_of, trace
from clrsearch.search.history import Record
from clrsearch.search.space import StudySpace
from clrsearch.tasks import TaskFacts

LOOKS = 16
GOLDEN = (math.sqrt(5) - 1) / 2  # spreads the sampled steps so that they do not align with cycles
SAME = 1e-8  # tolerance relative to the peak, for rounding differences between families


class Traces:
    """Numbers the traces of a study's schedules; equal traces share a number.

    A user's function is never called: its schedules are equal if their values are.
    """

    def __init__(self, space: StudySpace, facts: TaskFacts) -> None:
        self._space = space
        self._facts = facts
        self._steps = np.floor(np.arange(LOOKS) * GOLDEN % 1.0 * facts.horizon)
        self._of_values: dict[Hashable, int] = {}
        self._of_trial: dict[int, int] = {}
        self._alike: dict[Hashable, list[tuple[int, Schedule, Sequence[float]]]] = {}
        self._first: dict[str, dict[int, Mapping[str, Value]]] = {}

    def of(self, record: Record) -> int:
        """The number of a trial's trace."""
        if record.number not in self._of_trial:
            self._of_trial[record.number] = self.number(record.family, record.params)
        return self._of_trial[record.number]

    def number(self, family: str, params: Mapping[str, Value]) -> int:
        """The number of the trace of a family's values."""
        values = (family, frozenset(params.items()))
        if values not in self._of_values:
            new = len(self._of_values)
            formula = self._space.is_formula(family)
            self._of_values[values] = self._compared(family, params, new) if formula else new
        return self._of_values[values]

    def seed_points(self, family: str) -> Mapping[int, Mapping[str, Value]]:
        """Settings to try before sampling, by trace number.

        Of settings with equal traces, only the first is kept.
        """
        if family not in self._first:
            found: dict[int, Mapping[str, Value]] = {}
            for params in self._space.seed_points(family):
                found.setdefault(self.number(family, params), params)
            self._first[family] = found
        return self._first[family]

    def _compared(self, family: str, params: Mapping[str, Value], new: int) -> int:
        """The number of a known equal trace, or ``new``."""
        schedule = self._space.build(family, params)
        ratios = self._space.ratios(params, self._facts)
        alike = self._alike.setdefault(self._looks(schedule, ratios), [])
        if alike:
            whole = trace(schedule, self._facts.horizon, ratios)
            for number, known, its_ratios in alike:
                if _equal(whole, trace(known, self._facts.horizon, its_ratios)):
                    return number
        alike.append((new, schedule, ratios))
        return new

    def _looks(self, schedule: Schedule, ratios: Sequence[float]) -> Hashable:
        """Rounded fingerprint of a trace at a few steps, the same for equal traces."""
        rates, momenta = schedule.at(self._steps)
        peak, highest = float(rates.max()) or 1.0, max(ratios)
        parts = [rates / peak, np.asarray(ratios) / highest]
        if momenta is not None:
            parts.append(momenta)
        rounded = np.rint(np.concatenate(parts) / SAME).astype(np.int64)
        height = round(math.log(peak * highest) / SAME)
        return momenta is None, averaging_of(schedule), height, rounded.tobytes()


def one_each(records: Sequence[Record], trace_of: Callable[[Record], int]) -> list[Record]:
    """Drop records whose trace equals that of an earlier record."""
    found: dict[int, Record] = {}
    for record in records:
        found.setdefault(trace_of(record), record)
    return list(found.values())


def _equal(one: Trace, other: Trace) -> bool:
    if one.averaging != other.averaging:
        return False
    if not np.allclose(one.rates, other.rates, rtol=0, atol=SAME * float(one.rates.max())):
        return False
    if one.momenta is None or other.momenta is None:
        return one.momenta is other.momenta
    return np.allclose(one.momenta, other.momenta, rtol=0, atol=SAME)
