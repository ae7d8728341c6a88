"""What a new study takes over from the stored ones that its plan says it is like."""

from __future__ import annotations

from clrsearch.errors import PlanError, StudyError
from clrsearch.results import snapshot
from clrsearch.search import (
    EarlierStudy,
    Record,
    Studies,
    Study,
    StudyPlan,
    Verdict,
    remembered,
)
from clrsearch.service.confirming import candidates_of
from clrsearch.storage import StorageUrl, has_studies, open_database


def started_like(
    url: StorageUrl, name: str, plan: StudyPlan
) -> tuple[StudyPlan, tuple[EarlierStudy, ...]]:
    """Copy what the study ``name`` takes over from those of ``plan.like``; and its plan.

    Unless it names a seed, it has another one than they: on theirs, their finalists were chosen.

    Raises:
        PlanError: one of them is not stored, or is the study itself, a confirmation, or without a
            complete trial.
    """
    if not plan.like:
        return plan, ()
    if name in plan.like:
        raise PlanError(f"like: {name} is this study itself: choose another name with --name")
    if not has_studies(url):
        raise PlanError(f"like: no study {plan.like[0]}: the database has none yet")
    with open_database(url) as database:
        studies = [_opened(Studies(database), each) for each in plan.like]
        taken = {each.plan.seed for each in studies}
        if "seed" not in plan.model_fields_set and plan.seed in taken:
            plan = plan.model_copy(update={"seed": max(taken) + 1})
        return plan, tuple(_remembered(each, among=len(studies)) for each in studies)


def _opened(studies: Studies, name: str) -> Study:
    try:
        record = studies.read(name)
        if record.stage == "confirm":
            raise PlanError(f"like: {name} is the confirmation of {record.search}: name that study")
        return Study.open(studies.database, name)
    except StudyError as error:
        raise PlanError(f"like: {error}") from error


def _remembered(study: Study, *, among: int) -> EarlierStudy:
    now, records = snapshot(study), study.history.records()
    best = now.recommended
    if best is None:
        raise PlanError(
            f"like: {study.name} has no complete trial yet, so there is nothing to start from"
        )
    others = [each for each in _finalists(study, records, now.verdict) if each != best]
    sibling = study.confirmation()
    confirmed = [] if sibling is None else sibling.history.records()
    return remembered(study.record, [best, *others], records, confirmed, among=among)


def _finalists(study: Study, records: list[Record], verdict: Verdict | None) -> list[Record]:
    """The finalists, best first: by the fresh seeds if there is a verdict, else as expected."""
    if verdict is None:
        return candidates_of(study, study.confirmation(), records)
    by_number = {each.number: each for each in records}
    return [by_number[each.trial] for each in verdict.standings if not each.diverged]
