"""What a slot's trial is to be: a setting that is always tried, a random one, or the surrogate's.

The surrogate proposes by Thompson sampling (W. R. Thompson, Biometrika 25, 1933): one surface is
drawn from its posterior, and the candidate that is best on it is run. So proposals differ as far as
one knows little, and agree as one knows more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clrsearch.schedules import Value
from clrsearch.search.candidates import draw, neighbour
from clrsearch.search.history import Record
from clrsearch.search.plan import ANY, LED
from clrsearch.search.posterior import Searched, posterior
from clrsearch.search.sampler import suggest
from clrsearch.search.surrogate import FEWEST, Surrogate, SurrogateError
from clrsearch.search.traces import Traces

STARTUP = 15  # trials that are told before the surrogate is asked, or ...
STARTUP_SHARE = 1 / 4  # ... that share of a small study
DRAWN = 600  # candidates drawn at random
BEST = 8  # trials that have neighbours among the candidates ...
NEIGHBOURS = 25  # ... so many each
REDRAWN = 20  # times at most, where what is drawn has been tried

Schedule = tuple[str, Mapping[str, Value]]
"""A family and its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What to try, and why the surrogate was not asked where it should have been."""

    family: str
    params: Mapping[str, Value]
    fallback: str = ""


def propose(
    label: str, rank: int, records: Sequence[Record], searched: Searched, *, seed: int
) -> Proposal:
    """The trial for a slot with a ``label``, a family's name or ANY, after ``rank`` others like it.

    ``records`` are the trials of all other slots. The same arguments give the same proposal.
    Nothing is tried twice while there is something new to be found. Rates by a function of the
    user's are left to TPE.
    """
    known = {searched.traces.of(record) for record in records}
    if label != ANY:
        first = list(searched.traces.first(label).items())[rank:]
        if first and first[0][0] not in known:
            return Proposal(family=label, params=first[0][1])
    by_function = label != ANY and not searched.space.is_formula(label)
    if searched.plan.sampler != "surrogate" or by_function:
        return _by_optuna(label, records, searched, known, seed)
    generator = np.random.default_rng(seed)
    told = sum(record.state in ("complete", "pruned") for record in records)
    fallback = ""
    if told >= max(FEWEST, min(STARTUP, STARTUP_SHARE * searched.plan.trials)):
        try:
            ranked = _by_surrogate(label, records, searched, generator)
            return _new(ranked, searched.traces, known)
        except SurrogateError as error:
            fallback = str(error)
    drawn = _at_random(label, rank, searched, generator)
    return replace(_new(drawn, searched.traces, known), fallback=fallback)


def _by_optuna(
    label: str, records: Sequence[Record], searched: Searched, known: set[int], seed: int
) -> Proposal:
    params = suggest(
        [record for record in records if record.family == label],
        searched.space.families[label],
        direction=searched.direction,
        seed=seed,
        sampler="tpe" if searched.plan.sampler == "surrogate" else searched.plan.sampler,
        tried=lambda params: searched.traces.number(label, params) in known,
    )
    return Proposal(family=label, params=params)


def _by_surrogate(
    label: str, records: Sequence[Record], searched: Searched, generator: np.random.Generator
) -> Iterator[Schedule]:
    """Candidates, those that are best on a surface drawn from the posterior first."""
    surrogate = posterior(records, (), searched)
    candidates = _candidates(label, records, searched, surrogate, generator)
    drawn = surrogate.draw(searched.points.of(candidates), generator)
    return (candidates[index] for index in np.argsort(drawn, kind="stable"))


def _candidates(
    label: str,
    records: Sequence[Record],
    searched: Searched,
    surrogate: Surrogate,
    generator: np.random.Generator,
) -> list[Schedule]:
    families, spaces = searched.families(label), searched.space.families
    found: list[Schedule] = [
        (family, draw(spaces[family], generator))
        for family in families
        for _ in range(-(-DRAWN // len(families)))
    ]
    for family in families:
        found += [(family, params) for params in searched.traces.first(family).values()]
    complete = [each for each in records if each.state == "complete" and each.family in families]
    if complete:
        means = surrogate.mean(searched.points.of_records(complete))
        for index in np.argsort(means, kind="stable")[:BEST]:
            best = complete[index]
            found += [
                (best.family, neighbour(best.params, spaces[best.family], generator))
                for _ in range(NEIGHBOURS)
            ]
    return found


def _at_random(
    label: str, rank: int, searched: Searched, generator: np.random.Generator
) -> Iterator[Schedule]:
    """Random values of a family; where any will do, of those that have no slots of their own.

    They take turns, so that each is tried.
    """
    families = [each for each in searched.families(label) if each != LED or label == LED]
    family = families[rank % len(families)]
    for _ in range(REDRAWN):
        yield family, draw(searched.space.families[family], generator)


def _new(schedules: Iterator[Schedule], traces: Traces, known: set[int]) -> Proposal:
    """The first that has not been tried; where all of them have, the first."""
    first = None
    for family, params in schedules:
        found = Proposal(family=family, params=params)
        if traces.number(family, params) not in known:
            return found
        first = first or found
    assert first is not None
    return first
