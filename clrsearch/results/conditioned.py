"""A recommended schedule and its rivals under changed conditions, as plain data and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clrsearch.errors import StudyError
from clrsearch.results.formatting import number
from clrsearch.search import Record, Study, Verdict, judge, read_fresh
from clrsearch.storage import unfinished

UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioned:
    """The schedules under one condition.

    Attributes:
        label: what is changed, such as ``weight_decay=3x``; ``unchanged`` for the confirmation.
        study: the name of the study that holds the runs.
        left: number of runs that have not ended.
        verdict: the verdict on these schedules; None until they share a seed, or if all diverged.
        diverged: whether all of them diverged.
    """

    label: str
    study: str
    left: int
    verdict: Verdict | None = field(repr=False)
    diverged: bool = False

    def holds(self, trial: int) -> bool | None:
        """Whether no schedule is better than the ``trial`` by more than the study tolerates.

        That is a share of the noise, as in the choice of the recommended schedule. None if it is
        not known yet.
        """
        if self.verdict is None:
            return False if self.diverged else None
        top, its = self.verdict.standings[0], self.verdict.standing(trial)
        most = self.verdict.tolerance * (self.verdict.deviation or 0.0)
        return not its.diverged and abs(its.mean - top.mean) <= most


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
        holding = [each for each in self.changed if each.holds(self.recommended.number)]
        left = sum(each.left for each in self.conditions[1:])
        use, of = _named(self.recommended), len(self.changed)
        conditions = "changed condition" if of == 1 else "changed conditions"
        said = f"The recommendation, {use}, holds under {len(holding)} of {of} {conditions}."
        waiting = f"{left} runs are left." if left else ""
        return " ".join(filter(None, (said, *self._exceptions(), *self._never(), waiting)))

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
            better = f"Under {each.label} {top.family} (trial {top.trial}) is better"
            p = "" if its.p is None else f" (p = {its.p:.2g})"
            yield f"{better} by {number(abs(its.mean - top.mean))}{p}."

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
    return Variation(
        study=study.name,
        metric=study.facts.metric,
        schedules=tuple(schedules),
        conditions=tuple(
            _conditioned(label, study, each, schedules)
            for label, each in ((UNCHANGED, own), *conditions)
        ),
        interrupted=interrupted,
    )


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
