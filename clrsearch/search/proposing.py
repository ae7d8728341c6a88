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
from clrsearch.search.plan import ANY, HOLDING, LED
from clrsearch.search.posteriors import Searched, posterior
from clrsearch.search.sampler import suggest
from clrsearch.search.starts import Start, known_starts, may_open, with_start
from clrsearch.search.surrogate import FEWEST, Surrogate, SurrogateError
from clrsearch.search.traces import Traces
from clrsearch.search.warm_start import Schedule, WarmStart

STARTUP = 15  # finished trials before the surrogate proposes, or ...
STARTUP_SHARE = 1 / 4  # ... this share of a small study
DRAWN = 600  # random candidates
BEST = 8  # best trials whose neighbours are candidates ...
NEIGHBOURS = 25  # ... this many each
REDRAWN = 20  # maximum number of redraws of schedules that were already tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A schedule to try; ``fallback`` says why the surrogate, if due, could not propose it."""

    family: str
    params: Mapping[str, Value]
    fallback: str = ""


def propose(
    label: str,
    rank: int,
    records: Sequence[Record],
    searched: Searched,
    *,
    seed: int,
    seed_index: int = 0,
    warm: WarmStart | None = None,
) -> Proposal:
    """Propose the trial of a slot with this ``label``, a family's name or ANY.

    ``rank`` is the number of earlier slots with the same label, ``records`` are the trials of all
    other slots, and ``seed_index`` is the seed that the trial starts from. Deterministic for the
    same arguments. No schedule is proposed twice while a new one can be found. Families defined by
    a user's function are left to TPE.

    With a ``warm`` start, the finalists of earlier studies come first, and the surrogate proposes
    in every other slot from the beginning; the rest is still drawn at random, in case the tasks
    differ.
    """
    known = {searched.traces.of(record) for record in records}
    spaces = searched.space.families
    opens = may_open(searched.plan, records, seed_index)
    shared = [] if opens else known_starts(records, seed_index)
    first = _first(label, rank, searched, known, warm, opens=opens)
    if first is not None:
        return first
    by_function = label != ANY and not searched.space.is_formula(label)
    if searched.plan.sampler != "surrogate" or by_function:
        return _by_optuna(label, records, searched, known, seed)
    generator = np.random.default_rng(seed)
    told = sum(record.state in ("complete", "pruned") for record in records)
    fallback = ""
    due = told >= max(FEWEST, min(STARTUP, STARTUP_SHARE * searched.plan.trials))
    if due or (warm is not None and warm.surrogates and rank % 2 == 0):
        try:
            ranked = _by_surrogate(label, records, searched, shared, generator, warm)
            return _new(ranked, searched.traces, known)
        except SurrogateError as error:
            fallback = str(error)
    drawn = (
        (family, with_start(family, params, shared, spaces[family], generator))
        for family, params in _at_random(label, rank, searched, generator)
    )
    return replace(_new(drawn, searched.traces, known), fallback=fallback)


def _first(
    label: str,
    rank: int,
    searched: Searched,
    known: set[int],
    warm: WarmStart | None,
    *,
    opens: bool,
) -> Proposal | None:
    """The fixed initial setting of a slot, if it has one that has not been tried.

    One that holds its rate counts only if the slot ``opens`` a start that no other trial has.
    """
    if warm is not None:
        families = searched.families(label)
        for place, (family, params) in enumerate(warm.finalists):
            fits = family in families or (label == ANY and place == 0)  # also a baseline's
            if fits and searched.traces.number(family, params) not in known:
                return Proposal(family=family, params=params)
    if label != ANY and (opens or label not in HOLDING):
        first = list(searched.traces.seed_points(label).items())[rank:]
        if first and first[0][0] not in known:
            return Proposal(family=label, params=first[0][1])
    return None


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
    label: str,
    records: Sequence[Record],
    searched: Searched,
    shared: Sequence[Start],
    generator: np.random.Generator,
    warm: WarmStart | None,
) -> Iterator[Schedule]:
    """Candidates sorted by a surface drawn from the posterior, best first.

    Those that hold their rate have one of the ``shared`` starts, if there are any.
    """
    surrogate = _surrogate(records, searched, () if warm is None else warm.surrogates)
    best = best_of(label, records, searched, surrogate)
    if warm is not None:
        families = searched.families(label)
        best += [each for each in warm.finalists if each[0] in families]
    spaces = searched.space.families
    offered = [
        (family, with_start(family, params, shared, spaces[family], generator))
        for family, params in candidates(label, best, searched, generator)
    ]
    drawn = surrogate.draw(searched.points.of(offered), generator)
    return (offered[index] for index in np.argsort(drawn, kind="stable"))


def _surrogate(
    records: Sequence[Record], searched: Searched, earlier: Sequence[Surrogate]
) -> Surrogate:
    """The surrogate of this study; while it has too few trials, that of the first earlier one."""
    try:
        return posterior(records, (), searched, earlier=earlier)
    except SurrogateError:
        if not earlier:
            raise
        return earlier[0]


def best_of(
    label: str, records: Sequence[Record], searched: Searched, surrogate: Surrogate
) -> list[Schedule]:
    """The schedules of the complete trials that a slot with this label may try, the best first."""
    families = searched.families(label)
    complete = [each for each in records if each.state == "complete" and each.family in families]
    means = surrogate.mean(searched.points.of_records(complete))
    ranked = [complete[index] for index in np.argsort(means, kind="stable")]
    return [(each.family, each.params) for each in ranked]


def candidates(
    label: str, best: Sequence[Schedule], searched: Searched, generator: np.random.Generator
) -> list[Schedule]:
    """Random schedules, the initial settings, and neighbours of the ``best`` ones."""
    families, spaces = searched.families(label), searched.space.families
    found: list[Schedule] = [
        (family, draw(spaces[family], generator))
        for family in families
        for _ in range(-(-DRAWN // len(families)))
    ]
    for family in families:
        found += [(family, params) for params in searched.traces.seed_points(family).values()]
    for family, params in best[:BEST]:
        found += [(family, neighbour(params, spaces[family], generator)) for _ in range(NEIGHBOURS)]
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
