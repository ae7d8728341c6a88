"""The confirmation of a search: begun when that has ended, and gone on with round by round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from clrsearch.search import (
    OPENING,
    Record,
    Run,
    Study,
    alike,
    beliefs,
    budget,
    every_run,
    expected_of,
    finalists,
    next_runs,
    one_each,
    read_fresh,
)
from clrsearch.storage import UNFINISHED, Patience, SlotState


def begin_confirmation(study: Study) -> Study | None:
    """The study in which the best are run again, with the runs that are wanted now.

    These are all that the plan asks for, or the next round where it names no number of seeds. Every
    process finds the same ones, as it decides by what is stored when a round has ended; so several
    may ask at once. None where the search has not ended, or has no complete trial. Who was a
    finalist before the search grew stays one. After ``cancel`` nothing is
    added: what there is may have trials to be resumed.
    """
    if study.stage == "confirm" or study.stopped is not None or study.slots.unfinished():
        return None
    sibling = study.confirmation()
    records = study.history.records()
    if study.cancelled:
        return sibling
    if all(record.state != "complete" for record in records):
        return None
    candidates = _finalists(study, sibling, records)
    seeds = study.plan.confirm.seeds
    if seeds is not None:
        runs = every_run(candidates, seeds)
    else:
        runs = _next_round(study, sibling, candidates, records)
        if not runs:
            return sibling
    begun = study.confirm(candidates, runs)
    if study.cancelled:  # while these were added
        begun.slots.cancel()
    return begun


def rounds(study: Study, patience: Patience) -> Iterator[Study]:
    """The confirmation, again for each round of runs that it gets; none where none is wanted."""
    asked = 0
    while study.plan.confirm.enabled:
        sibling = patience(lambda: begin_confirmation(study))
        if sibling is None:
            return
        known, asked = asked, patience(sibling.slots.counts).total()
        if asked == known:
            return
        yield sibling


def is_settled(study: Study, confirmation: Study) -> bool:
    """Whether no further round follows on a confirmation of which all runs have ended."""
    if study.plan.confirm.seeds is not None or study.cancelled:
        return True
    records = study.history.records()
    candidates = _finalists(study, confirmation, records)
    return not _next_round(study, confirmation, candidates, records)


def _finalists(study: Study, sibling: Study | None, records: Sequence[Record]) -> list[Record]:
    """Who is confirmed, by what the search alone tells: fresh seeds change nothing of it.

    As many as can run with two seeds each where the plan names a share. Where families are
    compared, one of each is, however unlikely it is to be the best. Without the surrogate the
    scores decide.
    """
    plan, top = study.plan, study.plan.confirm.top
    if plan.confirm.seeds is None:
        top = min(top, max(budget(plan) // OPENING - 1, 1))  # and the baseline
    believed = beliefs(records, (), study.searched) if plan.sampler == "surrogate" else {}
    deviation = {number: each.deviation for number, each in believed.items()}
    if plan.allocation == "equal":
        top = max(top, len({*plan.families} - {plan.baseline}))
        deviation = dict.fromkeys(believed, math.inf)
    best = finalists(
        records,
        top=top,
        baseline=plan.baseline,
        direction=study.facts.direction,
        trace_of=study.traces.of,
        alike=lambda one, other: alike(one, other, study.searched),
        expected={number: each.mean for number, each in believed.items()},
        deviation=deviation,
    )
    earlier = set() if sibling is None else set(sibling.finalists())
    known = [each for each in records if each.number in earlier]
    return one_each([*known, *best], study.traces.of)  # as read_fresh takes one for all equal ones


def _next_round(
    study: Study, sibling: Study | None, candidates: Sequence[Record], records: Sequence[Record]
) -> list[Run]:
    """The runs to add; none while a round is under way, or where it has been the last one."""
    asked: set[Run] = set()
    scores: dict[int, dict[int, float | None]] = {each.number: {} for each in candidates}
    runs: list[Record] = []
    if sibling is not None:
        states = sibling.slots.runs()  # before what they have come to, which may be more by then
        if any(state in UNFINISHED for state in states.values()):
            return []
        fresh = read_fresh(study, sibling)
        asked = {
            (fresh.stands_for[finalist], seed)
            for (finalist, seed), state in states.items()
            if state != SlotState.CANCELLED
        }
        for trial, of_trial in fresh.scores.items():
            seeds = [seed for seed in of_trial if (trial, seed) in asked]
            scores[trial] = {seed: of_trial[seed] for seed in seeds}
        runs = [each for each in fresh.runs if (each.finalist, each.seed_index) in states]
    believed = beliefs(records, runs, study.searched)
    return next_runs(
        candidates,
        scores,
        asked,
        direction=study.facts.direction,
        baseline=study.plan.baseline,
        left=budget(study.plan) - len(asked),
        workers=_workers(records),
        expected=expected_of(candidates, believed),
        tolerance=study.plan.confirm.tolerance,
    )


def _workers(records: Sequence[Record]) -> int:
    """How many worked at the search when its last trial began."""
    last = max(record.started for record in records)
    return len({each.worker for each in records if each.ended is None or each.ended >= last})
