"""Search strategies of the kind this package has, and what they are judged against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from scipy import stats

from clrsearch.schedules import Choice, Constant, Value
from clrsearch.search import Record, hopeless, suggest
from replay.play import FRESH_SEEDS, SEARCH_SEEDS, Game, Outcome, Schedule

Strategy = Callable[[Game, np.random.Generator], Schedule]
"""Plays a game until its budget is spent, and names the schedule that it recommends."""

FRESH = range(SEARCH_SEEDS, SEARCH_SEEDS + FRESH_SEEDS)
TENTH = 10  # one slot in so many was the baseline's
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)  # no strategy looks at times


@dataclass(slots=True)
class Log:
    """What a strategy has run in its search, as the package's functions see a history."""

    records: list[Record] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)

    def add(self, schedule: Schedule, outcome: Outcome, seed: int) -> None:
        """One more trial."""
        self.schedules.append(schedule)
        number = len(self.records)
        cut = outcome.diverged or outcome.stopped
        self.records.append(
            Record(
                number=number,
                slot=number,
                family=schedule.family,
                params=schedule.params,
                state="pruned" if cut else "complete",
                diverged=outcome.diverged,
                values=dict(enumerate(outcome.values, start=1)),
                metrics={},
                worker="",
                device="",
                seconds=0.0,
                drift=0.0,
                error="",
                final=False,
                finalist=None,
                seed_index=seed,
                test={},
                started=BEGUN,
                ended=BEGUN,
            )
        )

    def of(self, family: str) -> list[Record]:
        """One family's trials."""
        return [record for record in self.records if record.family == family]

    def best(self) -> list[Schedule]:
        """The schedules whose trials are complete, the best first."""
        complete = [record for record in self.records if record.state == "complete"]
        ranked = sorted(complete, key=lambda record: record.value or 0.0)
        return [self.schedules[record.number] for record in ranked]


def drawn(game: Game, rng: np.random.Generator) -> Schedule:
    """A random family and random values of it."""
    family = str(rng.choice(list(game.space.families)))
    params: dict[str, Value] = {}
    for name, parameter in game.space.families[family].items():
        if not parameter.applies(params):
            continue
        domain = parameter.domain
        if isinstance(domain, Choice):
            params[name] = domain.options[rng.integers(len(domain.options))]
        elif domain.integer:
            params[name] = int(rng.integers(int(domain.low), int(domain.high) + 1))
        elif domain.log:
            params[name] = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
        else:
            params[name] = rng.uniform(domain.low, domain.high)
    return game.admit(family, params)


def seeds_of(game: Game) -> int:
    """On how many fresh seeds finalists are confirmed: 5 where 50 runs or more are paid, else 3."""
    return 5 if game.runs >= 50 else 3


def confirmed(game: Game, finalists: Sequence[Schedule], seeds: int) -> np.ndarray:
    """The scores of the finalists on fresh seeds: (finalists, seeds)."""
    return np.array([[game.run(each, seed).score for seed in FRESH[:seeds]] for each in finalists])


def best_of_top(game: Game, ranked: Sequence[Schedule], top: int, seeds: int) -> Schedule:
    """The best mean on fresh seeds among the first ``top``."""
    finalists = ranked[:top]
    return finalists[int(confirmed(game, finalists, seeds).mean(axis=1).argmin())]


def random(game: Game, rng: np.random.Generator) -> Schedule:
    """Random schedules on one seed; the best three are confirmed."""
    log, kept = Log(), 3 * seeds_of(game)
    while game.affords(1 + kept):
        schedule = drawn(game, rng)
        log.add(schedule, game.run(schedule, 0), 0)
    return best_of_top(game, log.best(), 3, seeds_of(game))


def before(game: Game, rng: np.random.Generator) -> Schedule:
    """What this package did up to version 0.1: all families, one after the other.

    TPE per family on one seed, the family's own settings first, the constant rate in every tenth
    slot, trials stopped at troughs. The best of each family is confirmed, on 5 seeds of 100 runs
    and 2 of 33, and the simplest that cannot be told from the leader is recommended.
    """
    seeds = 5 if game.runs >= 50 else 2
    families = tuple(family for family in game.space.families if family != Constant.family)
    return _one_after_the_other(game, rng, families, per_family=True, seeds=seeds)


def before_cyclic(game: Game, rng: np.random.Generator) -> Schedule:
    """The same as `run` had it by default: cyclic alone, the best three confirmed."""
    return _one_after_the_other(game, rng, ("cyclic",), per_family=False, seeds=seeds_of(game))


def _one_after_the_other(
    game: Game,
    rng: np.random.Generator,
    families: tuple[str, ...],
    *,
    per_family: bool,
    seeds: int,
) -> Schedule:
    log = Log()
    finalists = 1 + (len(families) if per_family else 3)  # the baseline's is one
    slot = 0
    while game.affords(1 + finalists * seeds):
        tens, rest = divmod(slot, TENTH)
        baseline = rest == TENTH - 1
        family = Constant.family if baseline else families[(slot - tens) % len(families)]
        _trial(game, rng, log, family)
        slot += 1
    ranked = log.best()
    first: dict[str, Schedule] = {}
    for each in ranked:
        first.setdefault(each.family, each)
    chosen = list(first.values())
    if not per_family:
        others = [each for each in ranked if each not in chosen and each.family == "cyclic"]
        chosen += others[: finalists - len(chosen)]
    return simplest(chosen, confirmed(game, chosen, seeds))


def _trial(game: Game, rng: np.random.Generator, log: Log, family: str) -> None:
    """One trial of a family on the only seed."""
    own = log.of(family)
    first = game.space.first(family)
    given = len(own) < len(first)
    params = (
        first[len(own)]
        if given
        else suggest(
            own,
            game.space.families[family],
            direction="minimize",
            seed=int(rng.integers(2**31)),
        )
    )
    schedule = game.admit(family, params)
    ends = np.arange(1, game.facts.epochs + 1) * game.facts.steps_per_epoch - 1.0
    rates = game.space.build(schedule.family, schedule.params).at(ends)[0].tolist()

    def stop(values: Sequence[float]) -> bool:
        so_far = dict(enumerate(values, start=1))
        return hopeless(so_far, own, rates, direction="minimize")

    never = given or family == Constant.family
    outcome = game.run(schedule, 0) if never else game.run(schedule, 0, stop)
    log.add(schedule, outcome, 0)


def simplest(finalists: Sequence[Schedule], table: np.ndarray) -> Schedule:
    """The fewest values among those neither beaten by the leader nor a deviation of a seed worse.

    ``table`` is (finalists, seeds). Beaten: p < 0.05 by the pooled residuals of schedule + seed,
    corrected by Holm's method.
    """
    fit = [index for index in range(len(finalists)) if np.isfinite(table[index]).all()]
    order = sorted(fit or range(len(finalists)), key=lambda index: table[index].mean())
    if not fit or len(fit) == 1:
        return finalists[order[0]]
    table = table[order]
    count, seeds = table.shape
    gaps = table.mean(axis=1) - table[0].mean()
    residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (count - 1) * (seeds - 1)
    error = math.sqrt(2 * float((residuals**2).sum()) / freedom / seeds) or 1e-300
    p = 2 * stats.t.sf(gaps[1:] / error, freedom)
    beaten = set()
    for rank, index in enumerate(np.argsort(p)):
        if p[index] * (count - 1 - rank) > 0.05:
            break
        beaten.add(int(index) + 1)
    deviation = math.sqrt(float(table.var(axis=1, ddof=1).mean()))
    near = [i for i in range(count) if i == 0 or (i not in beaten and gaps[i] <= deviation)]
    return finalists[order[min(near, key=lambda i: (len(finalists[order[i]].params), i))]]
