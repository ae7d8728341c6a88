"""The verdict of a confirmation, as data and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clrsearch.search.anytime_tests import LEVEL

MOST_SEEDS = 1000  # more are never proposed
FEWEST_SEEDS = 3  # minimum for a meaningful result


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A finalist's result on the fresh seeds.

    Attributes:
        trial: its number in the search.
        family: its family.
        searched: its score in the search.
        scores: its fresh scores by seed index.
        mean: mean fresh score, adjusted for the seed effects if it has run with fewer seeds than
            others.
        low: lower end of the mean's 95 % interval; None with fewer than two seeds.
        high: upper end, likewise.
        expected: expected score on further seeds; None if it diverged.
        promise: expected improvement over the recommended schedule in noise standard deviations; 0
            for that schedule itself, None if too little is known.
        p: corrected, anytime-valid p-value of being as good as all others; None for the top
            finalist, and where nothing could be tested.
        diverged: number of seeds on which it diverged.
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
    """The verdict of the fresh seeds.

    Attributes:
        standings: the finalists by mean score, the top finalist first.
        undecided: trials that are not significantly worse than the top finalist, including the top
            finalist itself and excluding those in ``behind``.
        behind: trials that got fewer seeds than others because their promise was too small.
        winner: the family of all undecided and ``behind`` trials, if they share one and at least
            one rival is out.
        chosen: the recommended trial: the simplest one expected to lose at most ``tolerance`` noise
            standard deviations to the best.
        deviation: standard deviation of a score not explained by schedule or seed; None with one
            seed.
        possible: the largest advantage that the top finalist may still have over an undecided
            trial, in metric units; None if unknown.
        seeds_needed: number of seeds that would settle the closest comparison; None if that is more
            than 1,000 or nothing is left to settle.
        tolerance: acceptable loss against the best, in noise standard deviations.
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
        """The verdict in words."""
        return _sentence(self)

    def standing(self, trial: int) -> Standing:
        """The standing of one finalist."""
        return next(each for each in self.standings if each.trial == trial)


def _sentence(said: Verdict) -> str:
    top = said.standings[0]
    seeds = max(len(each.scores) for each in said.standings)
    if len(said.standings) == 1:
        return f"{_named(top)} was confirmed on {_count(seeds)}; it had no rivals."
    if seeds < 2:
        return (
            f"{_named(top)} is the top finalist, but one seed says nothing about the noise: "
            f"confirm with at least {FEWEST_SEEDS} seeds."
        )
    names = _names(said, said.undecided)
    many = len(said.undecided) > 1
    if said.winner is not None and many:
        return (
            f"{said.winner} is best: {_losers(said, seeds)}. Its schedules, {names}, cannot be "
            f"told apart: use trial {said.chosen}."
        )
    use = (
        f" Use {_named(said.standing(said.chosen))}, the simplest schedule expected to be "
        f"within {said.tolerance:g} noise standard deviations of the best."
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
    """How all other schedules were ruled out."""
    gone = sum(each.diverged > 0 for each in said.standings)
    beaten = len(said.standings) - len(said.undecided) - len(said.behind) - gone
    rivals = "its only rival" if beaten == 1 else f"each of its {beaten} rivals"
    if beaten and said.behind:
        rivals = "one rival" if beaten == 1 else f"{beaten} rivals"
    told = [
        f"it beats {rivals} on {_count(seeds)} (anytime-valid p < {LEVEL})" if beaten else "",
        f"{gone} of its rivals diverged" if gone else "",
        _behind(said) if said.behind else "",
    ]
    alone = ", and it had no others" if gone and not beaten and not said.behind else ""
    return "; ".join(filter(None, told)) + alone


def _behind(said: Verdict) -> str:
    """The schedules that were not significantly worse, but not worth more seeds."""
    most = max(len(said.standing(each).scores) for each in said.behind)
    return f"{_names(said, said.behind)} fell behind on {_count(most)} and got no more"


def _names(said: Verdict, trials: Iterable[int]) -> str:
    return ", ".join(_named(said.standing(trial)) for trial in trials)


def _named(standing: Standing) -> str:
    return f"{standing.family} (trial {standing.trial})"


def _count(seeds: int) -> str:
    return "1 fresh seed" if seeds == 1 else f"{seeds} fresh seeds"
