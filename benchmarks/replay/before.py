"""What this package did up to version 0.1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from clrsearch.schedules import Constant
from clrsearch.search import hopeless, suggest
from replay.play import Game, Schedule
from replay.strategies import Log, confirmed, seeds_of

TENTH = 10  # one slot in so many was the baseline's


def all_families(game: Game, rng: np.random.Generator) -> Schedule:
    """All families, one after the other.

    TPE per family on one seed, the family's own settings first, the constant rate in every tenth
    slot, trials stopped at troughs. The best of each family is confirmed, on 5 seeds of 100 runs
    and 2 of 33, and the simplest that cannot be told from the leader is recommended.
    """
    seeds = 5 if game.runs >= 50 else 2
    families = tuple(family for family in game.space.families if family != Constant.family)
    return _one_after_the_other(game, rng, families, per_family=True, seeds=seeds)


def cyclic_alone(game: Game, rng: np.random.Generator) -> Schedule:
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
    first = game.space.seed_points(family)
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
