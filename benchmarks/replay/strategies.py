"""What search strategies are, and what several of them need; and the simplest of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from clrsearch.schedules import Choice, Value
from clrsearch.search import Record
from replay.play import FRESH_SEEDS, SEARCH_SEEDS, Game, Outcome, Schedule

Strategy = Callable[[Game, np.random.Generator], Schedule]
"""Plays a game until its budget is spent, and names the schedule that it recommends."""

FRESH = range(SEARCH_SEEDS, SEARCH_SEEDS + FRESH_SEEDS)
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)  # no strategy looks at times


@dataclass(slots=True)
class Log:
    """What a strategy has run in its search, as the package's functions see a history."""

    records: list[Record] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)

    def add(
        self, schedule: Schedule, outcome: Outcome, seed: int, finalist: int | None = None
    ) -> None:
        """One more trial; of a confirmation, that of the ``finalist`` again."""
        self.end(self.begin(schedule, seed, finalist), outcome)

    def begin(self, schedule: Schedule, seed: int, finalist: int | None = None) -> int:
        """One more trial that is running; its number."""
        self.schedules.append(schedule)
        number = len(self.records)
        self.records.append(
            Record(
                number=number,
                slot=number,
                family=schedule.family,
                params=schedule.params,
                state="running",
                diverged=False,
                values={},
                metrics={},
                worker="",
                device="",
                seconds=0.0,
                drift=0.0,
                error="",
                final=False,
                finalist=finalist,
                seed_index=seed,
                test={},
                started=BEGUN,
                ended=None,
            )
        )
        return number

    def end(self, number: int, outcome: Outcome) -> None:
        """Record how a trial went."""
        self.records[number] = replace(
            self.records[number],
            state="pruned" if outcome.diverged or outcome.stopped else "complete",
            diverged=outcome.diverged,
            values=dict(enumerate(outcome.values, start=1)),
            ended=BEGUN,
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
