"""What fresh seeds say of schedules, as data and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clrsearch.search.evidence import LEVEL

MOST_SEEDS = 1000  # more of them are not proposed
FEWEST_SEEDS = 3  # that tell something


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a finalist did on the fresh seeds.

    ``trial`` is its number in the search and ``searched`` its score there; ``scores`` are the
    fresh ones by seed index. ``mean`` is theirs, or, of one that has run with fewer seeds than
    others, what it would be with all: the seeds' own effect is taken out. ``low`` and ``high`` are
    the ends of the mean's 95 % interval, None with fewer than two seeds. ``expected`` is the score
    that it is expected to have on further seeds, None where it diverged. ``promise`` is by how
    much it is expected to be better than the recommended one, where it is, in noise deviations; 0
    for that itself, None while too little is known. ``p`` is the corrected,
    anytime-valid p of its being as good as all others; None for the top finalist itself, and where
    nothing could be tested. ``diverged`` counts the seeds on which it did.
    """

    trial: int
    family: str
    searched: float
    scores: Mapping[int, float]
    mean: float
    low: float | None
    high: float | None
    expected: float | None
    promise: float | None
    p: float | None
    diverged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the fresh seeds say.

    Attributes:
        standings: the finalists in the order of their means, the top finalist first.
        undecided: the trials that are not significantly worse than the top finalist, that one
            among them, except those in ``behind``.
        behind: trials that were given fewer seeds than others because they promised too little.
        winner: the family of all undecided trials, if they are of one and none is behind.
        chosen: the recommended trial: the simplest one expected to lose at most ``tolerance``
            noise deviations to the best.
        deviation: the standard deviation of a score that neither schedule nor seed explains; None
            with one seed.
        possible: the largest advantage that the top finalist may still have over an undecided
            trial, in the metric's units; None where it is unknown.
        seeds_needed: how many seeds would settle the closest comparison; None if that is more than
            1,000 or nothing is left to settle.
    """

    standings: tuple[Standing, ...]
    undecided: tuple[int, ...]
    behind: tuple[int, ...]
    winner: str | None
    chosen: int
    deviation: float | None
    possible: float | None
    seeds_needed: int | None
    tolerance: float

    @property
    def sentence(self) -> str:
        """All of this in words."""
        return _sentence(self)

    def standing(self, trial: int) -> Standing:
        """Of one finalist."""
        return next(each for each in self.standings if each.trial == trial)


def _sentence(said: Verdict) -> str:
    top = said.standings[0]
    seeds = max(len(each.scores) for each in said.standings)
    if len(said.standings) == 1:
        return f"{_named(top)} was confirmed alone on {_count(seeds)}: it has no rival."
    if seeds < 2:
        return (
            f"{_named(top)} is the top finalist, but one seed says nothing about the noise: "
            f"confirm with at least {FEWEST_SEEDS} seeds."
        )
    names = _names(said, said.undecided)
    many = len(said.undecided) > 1
    if said.winner is not None and many:
        return (
            f"{said.winner} is best: {_losers(said, seeds)}. Its own schedules, {names}, cannot be "
            f"told apart: use trial {said.chosen}."
        )
    use = (
        f" Use {_named(said.standing(said.chosen))}, the simplest schedule that is expected to "
        f"lose at most {said.tolerance:g} noise deviations to the best."
    )
    if not many:
        simpler = use if said.chosen != top.trial else ""
        how = "is the top finalist" if said.behind else "is best"
        return f"{_named(top)} {how}: {_losers(said, seeds)}.{simpler}"
    largest = (
        ""
        if said.possible is None
        else f"a difference of up to {said.possible:.3g} is still possible, and "
    )
    settle = (
        f"about {said.seeds_needed} seeds would settle the clearest of these differences"
        if said.seeds_needed is not None
        else f"not even {MOST_SEEDS} seeds are likely to settle it"
    )
    behind = f" {_behind(said)}." if said.behind else ""
    return (
        f"No single winner on {_count(seeds)}: {names} cannot be told apart; "
        f"{largest}{settle}.{behind}{use}"
    )


def _losers(said: Verdict, seeds: int) -> str:
    """How all others were left behind."""
    gone = sum(each.diverged > 0 for each in said.standings)
    beaten = len(said.standings) - len(said.undecided) - len(said.behind) - gone
    rivals = "its only rival is" if beaten == 1 else f"each of its {beaten} rivals is"
    if beaten and said.behind:
        rivals = "one rival is" if beaten == 1 else f"{beaten} rivals are"
    told = [
        f"on {_count(seeds)} {rivals} beaten (anytime-valid p < {LEVEL})" if beaten else "",
        f"{gone} of its rivals diverged" if gone else "",
        _behind(said) if said.behind else "",
    ]
    alone = ", and there is no other" if gone and not beaten and not said.behind else ""
    return "; ".join(filter(None, told)) + alone


def _behind(said: Verdict) -> str:
    """Who is not beaten, but was not worth more seeds."""
    most = max(len(said.standing(each).scores) for each in said.behind)
    return f"{_names(said, said.behind)} fell behind on {_count(most)} and got no more"


def _names(said: Verdict, trials: Iterable[int]) -> str:
    return ", ".join(_named(said.standing(trial)) for trial in trials)


def _named(standing: Standing) -> str:
    return f"{standing.family} (trial {standing.trial})"


def _count(seeds: int) -> str:
    return "1 fresh seed" if seeds == 1 else f"{seeds} fresh seeds"
