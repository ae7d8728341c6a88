"""One line on what went wrong in an ended study, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator

from clrsearch import proposals
from clrsearch.results import formatting
from clrsearch.results.snapshots import Snapshot
from clrsearch.results.status import failures
from clrsearch.search import RATES, Study
from clrsearch.storage import SlotState, unfinished


def shortfall(study: Study, now: Snapshot) -> str | None:
    """What an ended study or its confirmation lacks; None if nothing, or if the search runs."""
    if unfinished(now.slots):
        return None
    status, retry = (proposals.command(each, now.name) for each in ("status", "retry"))
    if now.search_best is None:
        if now.done and now.slots.get(SlotState.DIVERGED, 0) == now.done:
            return _too_high(study, now)
        return (
            f"{now.name} has no result: no trial completed ({formatting.ends(now)}). "
            f"{status} shows what failed"
        )
    found = now.confirmed
    failed_runs = 0 if found is None else found.slots.get(SlotState.FAILED, 0)
    if found is not None and found.total and not found.left and found.verdict is None:
        again = f". {retry} retries the failed ones" if failed_runs else ""
        return (
            f"the confirmation of {now.name} has no result: {formatting.ends(found)}"
            f"{_cause(now)}{again}"
        )
    failed = now.slots.get(SlotState.FAILED, 0) + failed_runs
    if failed:
        trials = "1 trial" if failed == 1 else f"{failed} trials"
        return (
            f"{trials} of {now.name} failed{_cause(now)}: {status} shows why, {retry} retries them"
        )
    return None


def _cause(now: Snapshot) -> str:
    """The most frequent cause of failed trials and confirmation runs, in parentheses."""
    runs = now.confirmed.runs if now.confirmed else ()
    causes = failures([*now.records, *runs])
    return f" ({causes[0].cause})" if causes else ""


def _too_high(study: Study, now: Snapshot) -> str:
    tried = [
        float(record.params[key])
        for record in now.records
        for key in RATES[:2]
        if key in record.params
    ]
    rates = f" at learning rates of {formatting.number(min(tried))} and above" if tried else ""
    settings = " ".join(f"--set {proposals.quoted(each)}" for each in _lower_bounds(study))
    another = proposals.again(name=f"{now.name}-2") or proposals.command("run")
    return (
        f"{now.name} has no result: every trial diverged{rates}. Lower the bounds: add "
        f"{settings} to {another}"
    )


def _lower_bounds(study: Study) -> Iterator[str]:
    """Settings that bound each family's learning rates from above by the study's lower bounds."""
    for family, space in study.space.families.items():
        for key in RATES:
            if key in space:
                low = float(space[key].domain.extremes[0])
                yield f"bounds.{family}.{key}=[{low / 100:.2g}, {low:.2g}]"
