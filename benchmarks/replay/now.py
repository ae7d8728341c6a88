"""What this package does now, by its own functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clrsearch.errors import StudyError
from clrsearch.schedules import Constant
from clrsearch.search import (
    Record,
    StudyPlan,
    alike,
    beliefs,
    budget,
    expected_of,
    finalists,
    hopeless,
    judge,
    next_runs,
)
from clrsearch.search.plan import BASELINE_EVERY, ConfirmPlan
from clrsearch.search.posteriors import Searched
from clrsearch.search.proposing import propose
from clrsearch.search.trace_features import LENGTHS, Array, Points
from clrsearch.search.traces import Traces
from clrsearch.search.warm_start import WarmStart
from replay.play import FRESH_SEEDS, SEARCH_SEEDS, Game, Schedule
from replay.strategies import Log, Strategy


def strategy(
    seeds: int = SEARCH_SEEDS,
    pruner: str = "lenient",
    share: float = 0.25,
    lengths: Callable[[str], Array] = lambda name: LENGTHS,
    lanes: int = 1,
) -> Strategy:
    """The search with these settings of a plan; all others are the default.

    So many ``lanes`` are proposed together, and learn nothing from each other. ``lengths`` are
    those of the surrogate's features, by a task's name.
    """

    def play(game: Game, rng: np.random.Generator) -> Schedule:
        plan = StudyPlan(
            trials=round(game.runs * (1 - share)),
            seeds=seeds,
            pruner=pruner,
            confirm=ConfirmPlan(share=share),
        )
        search = Search(game, plan, rng, lengths(game.name), lanes)
        search.run()
        return search.confirm()

    return play


@dataclass(slots=True)
class Search:
    """One study, played."""

    game: Game
    plan: StudyPlan
    rng: np.random.Generator
    lengths: Array
    lanes: int
    warm: WarmStart | None = None
    searched: Searched = field(init=False)
    log: Log = field(default_factory=Log)
    again: Log = field(default_factory=Log)
    candidates: Sequence[Record] = ()

    def __post_init__(self) -> None:
        self.searched = Searched(
            plan=self.plan,
            space=self.game.space,
            traces=Traces(self.game.space, self.game.facts),
            points=Points(self.game.space, self.lengths),
            direction="minimize",
        )

    def run(self) -> None:
        """Trials, until the confirmation's share is left; what pruning saves makes more."""
        first = min(self.plan.trials, BASELINE_EVERY) - 1
        more = self.plan.model_copy(update={"trials": 10 * self.plan.trials})
        met: Counter[str] = Counter()
        labels = more.labels(first)
        for start in range(0, len(labels), self.lanes):
            running: list[int] = []
            for label in labels[start : start + self.lanes]:
                if not self.game.affords(1 + len(running) + budget(self.plan)):
                    break
                running.append(self._begin(label, met[label], met[label] % self.plan.seeds))
                met[label] += 1
            if not running:
                break
            for number in running:
                self._run(number)

    def _begin(self, label: str, rank: int, seed: int) -> int:
        """Propose a trial; its number."""
        records, draw = self.log.records, int(self.rng.integers(2**31))
        proposal = propose(label, rank, records, self.searched, seed=draw, warm=self.warm)
        return self.log.begin(self.game.admit(proposal.family, proposal.params), seed)

    def _run(self, number: int) -> None:
        """Train a trial, unless it is pruned."""
        records, schedule = self.log.records, self.log.schedules[number]
        seed = records[number].seed_index
        family, facts = schedule.family, self.game.facts
        rivals = [
            record for record in records if record.family == family and record.state != "running"
        ]
        ends = np.arange(1, facts.epochs + 1) * facts.steps_per_epoch - 1.0
        rates = self.game.space.build(family, schedule.params).at(ends)[0].tolist()

        def stop(values: Sequence[float]) -> bool:
            so_far = dict(enumerate(values, start=1))
            return hopeless(so_far, rivals, rates, direction="minimize")

        traces = self.searched.traces
        first = traces.number(family, schedule.params) in traces.seed_points(family)
        prunable = self.plan.pruner != "none" and family != Constant.family and not first
        outcome = self.game.run(schedule, seed, stop) if prunable else self.game.run(schedule, seed)
        self.log.end(number, outcome)

    def confirm(self) -> Schedule:
        """Finalists on fresh seeds, round by round; the schedule that is recommended then."""
        believed = beliefs(self.log.records, (), self.searched)
        left = self.game.left // self.game.facts.epochs
        candidates = finalists(
            self.log.records,
            top=min(self.plan.confirm.top, max(left // 2 - 1, 1)),
            baseline=self.plan.baseline,
            direction="minimize",
            trace_of=self.searched.traces.of,
            alike=lambda one, other: alike(one, other, self.searched),
            expected={number: each.mean for number, each in believed.items()},
            deviation={number: each.deviation for number, each in believed.items()},
        )
        self.candidates, again = candidates, self.again
        scores: dict[int, dict[int, float | None]] = {each.number: {} for each in candidates}
        asked: set[tuple[int, int]] = set()
        while runs := self._round(candidates, scores, asked, again, left - len(asked)):
            for number, seed in runs:
                schedule = self.log.schedules[number]
                outcome = self.game.run(schedule, SEARCH_SEEDS + seed - 1)
                again.add(schedule, outcome, SEARCH_SEEDS + seed - 1, finalist=number)
                scores[number][seed] = None if outcome.diverged else outcome.score
                asked.add((number, seed))
        expected = self._expected(candidates, again)
        try:
            verdict = judge(
                candidates,
                scores,
                direction="minimize",
                expected=expected,
                tolerance=self.plan.confirm.tolerance,
            )
        except StudyError:  # nobody got through
            return self.log.schedules[candidates[0].number]
        return self.log.schedules[verdict.chosen]

    def _round(
        self,
        candidates: Sequence[Record],
        scores: dict[int, dict[int, float | None]],
        asked: set[tuple[int, int]],
        again: Log,
        left: int,
    ) -> list[tuple[int, int]]:
        """The next runs that are wanted, of those for which there is a seed."""
        wanted = next_runs(
            candidates,
            scores,
            asked,
            direction="minimize",
            baseline=self.plan.baseline,
            left=left,
            expected=self._expected(candidates, again),
            tolerance=self.plan.confirm.tolerance,
        )
        return [(number, seed) for number, seed in wanted if seed <= FRESH_SEEDS]

    def _expected(self, candidates: Sequence[Record], again: Log) -> dict[int, float] | None:
        return expected_of(candidates, beliefs(self.log.records, again.records, self.searched))
