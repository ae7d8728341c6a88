"""A recommended schedule and its rivals under changed conditions, as plain data and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clrsearch.errors import StudyError
from clrsearch.results.confirmation import confirmed
from clrsearch.results.formatting import number
from clrsearch.search import Record, Study, Verdict, judge, read_fresh
from clrsearch.storage import unfinished
from clrsearch.tasks import Direction

UNCHANGED = "unchanged"
FEWEST_SEEDS = 2  # one says nothing about the noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioned:
    """The schedules under one condition.

    Attributes:
        label: what is changed, such as ``weight_decay=3x``; ``unchanged`` for the confirmation.
        study: the name of the study that holds the runs.
        direction: whether the metric is minimized or maximized.
        left: number of runs that have not ended.
        verdict: the verdict on these schedules; None until they share a seed, or if all diverged.
        diverged: whether all of them diverged.
    """

    label: str
    study: str
    direction: Direction
    left: int
    verdict: Verdict | None = field(repr=False)
    diverged: bool = False

    def holds(self, trial: int) -> bool | None:
        """Whether no schedule is expected to be better by more than the study tolerates.

        That is a share of the noise, as in the choice of the recommended schedule. None if it is
        not known yet, or one seed cannot tell.
        """
        if self.verdict is None:
            return False if self.diverged else None
        its = self.verdict.standing(trial)
        if its.diverged:
            return False
        known = [e.expected for e in self.verdict.standings if e.expected is not None]
        noise = self.verdict.deviation
        if len(its.scores) < FEWEST_SEEDS or (noise is None and len(known) > 1):
            return None
        best = min(known) if self.direction == "minimize" else max(known)
        assert its.expected is not None  # it did not diverge
        most = self.verdict.tolerance * (noise or 0.0)
        return its == self.verdict.standings[0] or abs(its.expected - best) <= most


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """A recommended schedule and its rivals under the study's own and under changed conditions.

    Attributes:
        study: the study's name.
        metric: the metric that is compared.
        schedules: the recommended trial and its rivals.
        conditions: the study's own condition, followed by the changed ones.
        interrupted: whether runs were interrupted.
    """

    study: str
    metric: str
    schedules: tuple[Record, ...]
    conditions: tuple[Conditioned, ...]
    interrupted: bool = False

    @property
    def recommended(self) -> Record:
        """The recommended trial."""
        return self.schedules[0]

    @property
    def changed(self) -> tuple[Conditioned, ...]:
        """The changed conditions that can be told of."""
        known = (each for each in self.conditions[1:])
        return tuple(each for each in known if each.holds(self.recommended.number) is not None)

    @property
    def sentence(self) -> str:
        """Under which conditions the recommendation holds, and where it does not."""
        left = sum(each.left for each in self.conditions[1:])
        told = [*self._holding(), *self._exceptions(), *self._never(), *self._untold()]
        waiting = [f"{left} runs are left."] if left else []
        return " ".join([*(told or ["No condition has finished yet."]), *waiting])

    def _holding(self) -> Iterator[str]:
        holding = [each for each in self.changed if each.holds(self.recommended.number)]
        use, of = _named(self.recommended), len(self.changed)
        conditions = "changed condition" if of == 1 else "changed conditions"
        if of:
            yield f"The recommendation, {use}, holds under {len(holding)} of {of} {conditions}."

    def _untold(self) -> Iterator[str]:
        """The conditions with a score of which one seed cannot tell."""
        scored = (each for each in self.conditions[1:] if each.verdict is not None)
        labels = ", ".join(e.label for e in scored if e.holds(self.recommended.number) is None)
        if labels:
            yield f"One seed cannot tell whether {_named(self.recommended)} holds under {labels}."

    def _exceptions(self) -> Iterator[str]:
        use = self.recommended
        for each in self.changed:
            if each.holds(use.number):
                continue
            if each.verdict is None:
                yield f"Under {each.label} every schedule diverged."
                continue
            its, top = each.verdict.standing(use.number), each.verdict.standings[0]
            if its.diverged:
                yield f"Under {each.label} {_named(use)} diverged on {its.diverged} seeds."
                continue
            rival = f"Under {each.label} {top.family} (trial {top.trial})"
            by = number(abs(its.mean - top.mean))
            if its.trial in (*each.verdict.undecided, *each.verdict.behind):
                seeds = f"{len(its.scores)} seeds cannot tell them apart"
                yield f"{rival} scored {by} better, but {seeds}."
            else:
                yield f"{rival} is better by {by} (p = {its.p:.2g})."

    def _never(self) -> Iterator[str]:
        """The rivals that are not better under any changed condition."""
        judged = [each.verdict for each in self.changed if each.verdict is not None]
        for rival in self.schedules[1:]:
            orders = [[standing.trial for standing in each.standings] for each in judged]
            behind = [
                each.index(rival.number) > each.index(self.recommended.number) for each in orders
            ]
            if behind and all(behind):
                yield f"{_named(rival)} is never better."


def variation(
    study: Study,
    schedules: Sequence[Record],
    conditions: Sequence[tuple[str, Study]],
    *,
    interrupted: bool = False,
) -> Variation:
    """Read the runs of the ``schedules`` under the study's own and under changed conditions.

    The recommended trial is the first schedule; each of the ``conditions`` is a label and the study
    that holds its runs.
    """
    own = study.confirmation()
    assert own is not None  # the schedules come from it
    changed = [_conditioned(label, study, runs, schedules) for label, runs in conditions]
    unchanged = replace(
        _conditioned(UNCHANGED, study, own, schedules), verdict=_choice(study, schedules)
    )
    return Variation(
        study=study.name,
        metric=study.facts.metric,
        schedules=tuple(schedules),
        conditions=(unchanged, *changed),
        interrupted=interrupted,
    )


def _choice(study: Study, schedules: Sequence[Record]) -> Verdict | None:
    """The verdict that has chosen the recommended schedule, of these schedules alone."""
    found = confirmed(study)
    if found is None or found.verdict is None:
        return None
    numbers = {each.number for each in schedules}
    kept = tuple(each for each in found.verdict.standings if each.trial in numbers)
    return replace(found.verdict, standings=kept)


def _conditioned(label: str, study: Study, runs: Study, schedules: Sequence[Record]) -> Conditioned:
    found = read_fresh(study, runs).scores
    scores = {each.number: found.get(each.number, {}) for each in schedules}
    try:
        verdict = judge(
            schedules,
            scores,
            direction=study.facts.direction,
            tolerance=study.plan.confirm.tolerance,
        )
    except StudyError:  # no seed is shared by all, or all diverged
        verdict = None
    return Conditioned(
        label=label,
        study=runs.name,
        direction=study.facts.direction,
        left=unfinished(runs.slots.counts()),
        verdict=verdict,
        diverged=all(None in each.values() for each in scores.values()),
    )


def variation_json(found: Variation) -> str:
    """A variation as one line of JSON."""
    use = found.recommended.number
    holds = [each.holds(use) for each in found.changed]
    return json.dumps(
        {
            "study": found.study,
            "metric": found.metric,
            "recommended": use,
            "schedules": [{"trial": e.number, "family": e.family} for e in found.schedules],
            "conditions": [
                {
                    "condition": each.label,
                    "study": each.study,
                    "left": each.left,
                    "holds": each.holds(use),
                    "scores": list(_scores(each.verdict)),
                }
                for each in found.conditions
            ],
            "holds": sum(map(bool, holds)),
            "of": len(holds),
            "sentence": found.sentence,
        }
    )


def _scores(verdict: Verdict | None) -> Iterator[dict[str, Any]]:
    """The schedules' scores, best first."""
    for each in () if verdict is None else verdict.standings:
        yield {
            "trial": each.trial,
            "mean": each.mean if each.scores else None,  # JSON has no NaN
            "half": None if each.low is None else each.mean - each.low,
            "p": each.p,
            "seeds": len(each.scores),
            "diverged": each.diverged,
        }


def _named(record: Record) -> str:
    return f"{record.family} (trial {record.number})"
