"""The confirmation of a search: it starts when the search has ended and runs in rounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from clrsearch.search import (
    OPENING,
    Phase,
    Record,
    Run,
    Study,
    alike,
    beliefs,
    budget,
    every_run,
    expected_of,
    finalists,
    is_over,
    next_runs,
    one_each,
    read_fresh,
    read_purses,
    workers_at_work,
)
from clrsearch.storage import UNFINISHED, Patience, SlotState
from clrsearch.storage import budget as budget_of

NO_LIMIT = 1_000_000  # runs


def begin_confirmation(study: Study) -> Study | None:
    """Start the confirmation study, or add the next runs to it; returns it.

    If the plan sets the number of seeds, all runs are added at once; otherwise the next round is.
    Several processes may call this at once: each decides from what is stored at the end of a round,
    so all find the same runs, unless they depend on the time that is left. Then those of the first
    one count: nothing is added to a round that has begun meanwhile. Finalists stay finalists when
    the search grows. After ``cancel`` nothing is added, but an existing confirmation is still
    returned, since it may have trials to resume.

    No more runs are added than the study's budget pays for. Returns None if the search has not
    ended or has no complete trial.
    """
    progress = study.progress()
    if not progress.may_confirm:
        return study.confirmation() if progress.cancelled else None
    sibling, records = study.confirmation(), study.history.records()
    asked = _asked(sibling)
    room = _room(study, sibling)
    candidates = candidates_of(study, sibling, records, room=room)
    runs = _next_runs(study, sibling, candidates, records, room=room)
    if not runs:
        return sibling
    sibling = study.confirmation()
    if _asked(sibling) != asked:
        return sibling
    begun = study.confirm(candidates, runs)
    if study.cancelled:  # meanwhile
        begun.slots.cancel()
    return begun


def rounds(study: Study, patience: Patience) -> Iterator[Study]:
    """Yield the confirmation once per round of runs; nothing if the plan disables it."""
    asked = 0
    while study.plan.confirm.enabled:
        sibling = patience(lambda: begin_confirmation(study))
        if sibling is None:
            return
        known, asked = asked, budget_of(patience(sibling.slots.counts))
        if asked == known:
            return
        yield sibling


def left(study: Study) -> int:
    """Number of slots left, after adding the runs of a confirmation that is due."""
    if study.plan.confirm.enabled:
        begin_confirmation(study)
    return study.progress().left


def has_ended(study: Study) -> bool:
    """Whether nothing is left to run, in the search or the confirmation, or their time is over."""
    if is_over(study):
        return study.progress().live == 0
    phase = study.progress().phase
    if phase is not Phase.BETWEEN_ROUNDS:
        return phase in (Phase.ENDED, Phase.STOPPED)
    sibling = study.confirmation()
    room = _room(study, sibling)
    return not room if sibling is None else _is_settled(study, sibling, room)


def lacks_budget(study: Study) -> bool:
    """Whether it is the end of a study's budget, and not a verdict, that ended its confirmation.

    It is not if workers have left while the budget still pays for something.
    """
    plan, sibling = study.limits, study.confirmation()
    if not (plan.budgeted and plan.confirm.enabled) or study.cancelled:
        return False
    over, room = is_over(study), _room(study, sibling)
    if study.progress().left:
        return over
    if sibling is None:
        return over or not room
    unsettled = not _is_settled(study, sibling, NO_LIMIT)
    return unsettled and (over or _is_settled(study, sibling, room))


def _is_settled(study: Study, confirmation: Study, room: int) -> bool:
    """Whether a confirmation whose runs have all ended needs no further one, if it has ``room``."""
    records = study.history.records()
    candidates = candidates_of(study, confirmation, records, room=room)
    return not _next_runs(study, confirmation, candidates, records, room=room)


def _room(study: Study, sibling: Study | None) -> int:
    """The number of runs that may be added to a confirmation, as far as the budget goes."""
    if not study.limits.budgeted:
        return NO_LIMIT
    counts = Counter[SlotState]() if sibling is None else sibling.slots.counts()
    waiting = counts[SlotState.OPEN]
    workers = workers_at_work(study.history.records())
    room = NO_LIMIT
    for each in read_purses(study, workers):  # GPU hours and epochs count runs that have begun
        asked = waiting + counts[SlotState.CLAIMED] if each.key == "minutes" else waiting
        room = min(room, each.runs() - asked)
    return max(room, 0)


def _shared(study: Study) -> int:
    """The number of runs that the share of a search's trials makes in all.

    A budget replaces it, unless the search has ended earlier, with all the trials asked for.
    """
    limit, trials = study.limits, budget_of(study.slots.counts())
    if limit.budgeted and (limit.until_settled or trials < limit.trials):
        return NO_LIMIT
    if limit.open_ended:
        return budget(study.plan.model_copy(update={"trials": trials}))
    return budget(study.plan)


def candidates_of(
    study: Study, sibling: Study | None, records: Sequence[Record], *, room: int = NO_LIMIT
) -> list[Record]:
    """Select the finalists from the search's trials alone; scores on fresh seeds have no effect.

    If the plan sets a share instead of a number of seeds, there are at most as many finalists as
    its budget, or ``room`` for runs beside those there are, covers with two seeds each. A
    comparison of families has a finalist from each family, however unlikely it is to be the best.
    Without the surrogate, finalists are ranked by score.
    """
    plan, top = study.plan, study.plan.confirm.top
    if plan.confirm.seeds is None:
        there = 0 if sibling is None else budget_of(sibling.slots.counts())
        runs = min(_shared(study), there + room)
        top = min(top, max(runs // OPENING - 1, 1))  # one is the baseline's
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
    return one_each([*known, *best], study.traces.of)  # read_fresh merges equal schedules too


def _next_runs(
    study: Study,
    sibling: Study | None,
    candidates: Sequence[Record],
    records: Sequence[Record],
    *,
    room: int,
) -> list[Run]:
    """The runs to add, at most ``room``: the next round's, or all with a fixed number of seeds."""
    seeds = study.plan.confirm.seeds
    if seeds is None:
        return _next_round(study, sibling, candidates, records, room=room)[:room]
    asked = _asked(sibling)
    return [run for run in every_run(candidates, seeds) if run not in asked][:room]


def _asked(sibling: Study | None) -> set[Run]:
    """The runs of a confirmation, without those that were cancelled."""
    states = {} if sibling is None else sibling.slots.runs()
    return {run for run, state in states.items() if state != SlotState.CANCELLED}


def _next_round(
    study: Study,
    sibling: Study | None,
    candidates: Sequence[Record],
    records: Sequence[Record],
    *,
    room: int,
) -> list[Run]:
    """The runs to add; empty while a round is in progress, or after the last one."""
    asked: set[Run] = set()
    scores: dict[int, dict[int, float | None]] = {each.number: {} for each in candidates}
    runs: list[Record] = []
    if sibling is not None:
        states = sibling.slots.runs()  # read before the scores, which may be newer
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
        left=min(_shared(study) - len(asked), room),
        workers=workers_at_work(records),
        expected=expected_of(candidates, believed),
        tolerance=study.plan.confirm.tolerance,
    )
