"""Whether a search is settled: another trial is expected to gain next to nothing.

Expected improvement (J. Mockus, 1975; D. R. Jones et al., 1998) of a schedule over the best one, by
the posterior mean of its score over seeds, and not of one noisy run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clrsearch.search.history import Record
from clrsearch.search.plan import ANY
from clrsearch.search.posteriors import Searched, posterior
from clrsearch.search.proposing import best_of, candidates
from clrsearch.search.surrogate import SurrogateError

FEWEST = 50
"""Finished trials before a search can be settled: with fewer, the surrogate is too sure of itself
(``benchmarks/README.md``)."""
WORTHLESS = 0.1
"""Improvement, in standard deviations of a run as the confirmation's tolerance has them, that is
not worth a trial."""


def is_settled(records: Sequence[Record], searched: Searched) -> bool:
    """Whether no schedule promises a tenth of a run's deviation over the best one tried.

    Deterministic for the same trials; False until a surrogate can be fitted to ``FEWEST``.
    """
    ended = [each for each in records if each.state in ("complete", "pruned")]
    if len(ended) < FEWEST or not searched.families(ANY):
        return False
    try:
        return promise(records, searched, seed=len(ended)) < WORTHLESS
    except SurrogateError:
        return False


def promise(records: Sequence[Record], searched: Searched, *, seed: int) -> float:
    """The largest expected improvement among candidates, in standard deviations of a run.

    Raises:
        SurrogateError: too few trials are complete.
    """
    surrogate = posterior(records, (), searched)
    generator = np.random.default_rng(seed)
    best = best_of(ANY, records, searched, surrogate)
    offered = searched.points.of(candidates(ANY, best, searched, generator))
    complete = [
        each
        for each in records
        if each.state == "complete" and searched.space.is_formula(each.family)
    ]
    tried = searched.points.of_records(complete)
    return surrogate.improvement(offered, tried)
