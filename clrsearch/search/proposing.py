"""Proposals for a slot's trial: a fixed initial setting, a random one, or the surrogate's.

The surrogate proposes by Thompson sampling (W. R. Thompson, Biometrika 25, 1933): draw one surface
from its posterior and run the candidate that is best on it. Proposals vary while little is known,
and converge as evidence accumulates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clrsearch.schedules import Value
from clrsearch.search.candidates import draw, neighbour
from clrsearch.search.history import Record
from clrsearch.search.plan import ANY, LED
from clrsearch.search.posteriors import Searched, posterior
from clrsearch.search.sampler import suggest
from clrsearch.search.surrogate import FEWEST, Surrogate, SurrogateError
from clrsearch.search.traces import Traces

STARTUP = 15  # finished trials before the surrogate proposes, or ...
STARTUP_SHARE = 1 / 4  # ... this share of a small study
DRAWN = 600  # random candidates
BEST = 8  # best trials whose neighbours are candidates ...
NEIGHBOURS = 25  # ... this many each
REDRAWN = 20  # maximum number of redraws of schedules that were already tried

Schedule = tuple[str, Mapping[str, Value]]
"""A family and its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A schedule to try; ``fallback`` says why the surrogate, if due, could not propose it."""

    family: str
    params: Mapping[str, Value]
    fallback: str = ""


def propose(
    label: str, rank: int, records: Sequence[Record], searched: Searched, *, seed: int
) -> Proposal:
    """Propose the trial of a slot with this ``label``, a family's name or ANY.

    ``rank`` is the number of earlier slots with the same label, ``records`` are the trials of all
    other slots. Deterministic for the same arguments. No schedule is proposed twice while a new one
    can be found. Families defined by a user's function are left to TPE.
    """
    known = {searched.traces.of(record) for record in records}
    if label != ANY:
        first = list(searched.traces.seed_points(label).items())[rank:]
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
    """Candidates sorted by a surface drawn from the posterior, best first."""
    surrogate = posterior(records, (), searched)
    offered = candidates(label, records, searched, surrogate, generator)
    drawn = surrogate.draw(searched.points.of(offered), generator)
    return (offered[index] for index in np.argsort(drawn, kind="stable"))


def candidates(
    label: str,
    records: Sequence[Record],
    searched: Searched,
    surrogate: Surrogate,
    generator: np.random.Generator,
) -> list[Schedule]:
    """Random schedules, the initial settings, and neighbours of the best trials."""
    families, spaces = searched.families(label), searched.space.families
    found: list[Schedule] = [
        (family, draw(spaces[family], generator))
        for family in families
        for _ in range(-(-DRAWN // len(families)))
    ]
    for family in families:
        found += [(family, params) for params in searched.traces.seed_points(family).values()]
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
    """Random values of a family; with ANY, of the families without slots of their own, in turn."""
    families = [each for each in searched.families(label) if each != LED or label == LED]
    family = families[rank % len(families)]
    for _ in range(REDRAWN):
        yield family, draw(searched.space.families[family], generator)


def _new(schedules: Iterator[Schedule], traces: Traces, known: set[int]) -> Proposal:
    """The first schedule that has not been tried, or the first of all if none is new."""
    first = None
    for family, params in schedules:
        found = Proposal(family=family, params=params)
        if traces.number(family, params) not in known:
            return found
        first = first or found
    assert first is not None
    return first
