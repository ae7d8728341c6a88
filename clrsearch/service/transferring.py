"""The plan of a study that confirms a recommended schedule for another batch size or length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clrsearch import proposals
from clrsearch.errors import PlanError, PlanMismatch, StudyError
from clrsearch.schedules import Manual
from clrsearch.search import (
    GROUPS,
    LIMITS,
    Record,
    Studies,
    Study,
    StudyPlan,
    best_first,
    budget,
    differences,
    length_keys,
    load_plan,
    rate_of,
    rescaled,
    respaced,
)
from clrsearch.service.look import chosen
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.provenance import bind_rate
from clrsearch.storage import open_database
from clrsearch.tasks import TaskFacts

TRIALS = 8
AROUND = 4.0
"""Peak rates are searched within this factor of the rescaled ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The plan of a study that searches a schedule's peak rate anew, and the study's name."""

    plan: StudyPlan
    name: str


def transfer(
    study: str,
    *,
    batch_size: int | None = None,
    epochs: int | None = None,
    trials: int | None = None,
    top: int | None = None,
    seeds: int | None = None,
    name: str | None = None,
    storage: Storage = None,
    task_dir: Path | None = None,
) -> Transfer:
    """Plan a study for another batch size or length, around the recommended schedule of ``study``.

    All of the schedule stays, in shares of the run, except its peak rate, which is searched around
    the rescaled one, starting with that. Half of the trials do the same for the baseline, or for
    the baseline's best rival if the baseline is recommended, so that both rates are tuned. The
    confirmation may take as many runs as that of ``study``. If the study is there already, its own
    plan is returned, to be resumed.

    Args:
        study: the study to transfer from.
        batch_size: the new batch size, if it changes.
        epochs: the new number of epochs, if it changes.
        trials: number of trials, 8 by default.
        top: number of finalists besides the baseline's; by default that of ``study``.
        seeds: fresh seeds per finalist, by default that of ``study``.
        name: the new study's name, by default ``study`` followed by -b and the batch size, and by
            -e and the epochs.
        storage: the database.
        task_dir: folder of a custom rate function, by default the current one.

    Raises:
        PlanError: a value is out of range or the study's own, or the schedule cannot be rescaled.
        PlanMismatch: another study has the name, or one for an earlier recommendation.
        StudyError: there is no such study, it is no search, or none of its trials is complete.
    """
    confirm = _given({"top": top, "seeds": seeds})
    given = _given({"trials": trials, "batch_size": batch_size, "epochs": epochs})
    load_plan(None, {**given, **{f"confirm.{key}": each for key, each in confirm.items()}})
    with open_database(storage_url(storage)) as database:
        source = Study.open(database, study)
        require_search(source)
        new = respaced(source.facts, epochs=epochs, batch_size=batch_size)
        if new == source.facts:
            raise PlanError(
                f"{study} has this batch size and length already: "
                f"{proposals.command('confirm', study)} confirms it"
            )
        name = name or _name(study, source.facts, new)
        plan = _plan(source, new, TRIALS if trials is None else trials, task_dir)
        if name in Studies(database).searches():
            stored = Study.open(database, name).plan
            _require_same(stored, plan, source, name)
            plan = stored if trials is None else stored.model_copy(update={"trials": trials})
        if confirm:
            asked = plan.confirm.model_copy(update=confirm)
            plan = plan.model_copy(update={"confirm": asked})
        return Transfer(plan=plan, name=name)


def require_search(study: Study) -> None:
    """Refuse what has no recommended schedule of a search.

    Raises:
        StudyError: the study measures several lengths, or holds the runs of a confirmation.
    """
    if study.plan.horizon is not None:
        raise StudyError(
            f"{study.name} is no search, but measures several lengths: "
            f"{proposals.command('best', study.name, epochs=study.facts.epochs)} prints "
            "the best schedule of one"
        )
    if study.stage == "confirm":
        of = study.record.confirms
        search = "its search" if of is None else of.name
        raise StudyError(f"{study.name} has the runs of a confirmation: name {search} instead")


def _given(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in keys.items() if each is not None}


def _name(study: str, facts: TaskFacts, new: TaskFacts) -> str:
    size = f"-b{new.batch_size}" if new.batch_size != facts.batch_size else ""
    return f"{study}{size}" + (f"-e{new.epochs}" if new.epochs != facts.epochs else "")


def _require_same(stored: StudyPlan, plan: StudyPlan, source: Study, name: str) -> None:
    """Refuse to resume a study that is for something else, or for an earlier recommendation."""
    keys = [each.partition(" ")[0] for each in differences(stored, plan)]
    if keys:
        raise PlanMismatch(
            f"the study {name} exists, and is not {source.name} with another batch size or length "
            f"as it would be now: {', '.join(keys)} would differ; choose another name with --name"
        )


def _schedules(source: Study) -> dict[str, Record]:
    """The recommended schedule and the best of the baseline, by family.

    If the baseline's own is recommended, the best finalist of the others is its rival, or their
    best trial.
    """
    use, verdict = chosen(source)
    records, baseline = source.history.records(), source.plan.baseline
    ranked = best_first(records, source.facts.direction)
    if use.family != baseline:
        rivals = [each for each in ranked if each.family == baseline]
    else:
        standings = () if verdict is None else verdict.standings
        confirmed = [source.trial(each.trial) for each in standings if not each.diverged]
        rivals = [each for each in (*confirmed, *ranked) if each.family != baseline]
    return {each.family: each for each in (use, *rivals[:1])}


def _plan(source: Study, new: TaskFacts, trials: int, task_dir: Path | None) -> StudyPlan:
    """The plan of ``source`` for the ``new`` facts, with the shapes of its schedules fixed."""
    schedules = _schedules(source)
    use = next(iter(schedules.values()))
    bounds: dict[str, Mapping[str, Any]] = {}
    start: dict[str, float] = {}
    manual = None
    for family, trial in schedules.items():
        bind_rate(source, family, task_dir)
        found = rescaled(source.space, source.facts, family, trial.params, new)
        shape = {key: value for key, value in found.params.items() if not key.startswith(GROUPS)}
        rate = rate_of(shape)
        start[family] = peak = float(shape[rate])
        bounds[family] = {**shape, rate: (peak / AROUND, peak * AROUND)}
        if family == Manual.family:
            manual = found.manual
    runs = max(budget(source.plan), 1)
    confirm = {"enabled": True, "share": runs / (runs + trials)}
    changes: dict[str, Any] = {
        "trials": trials,
        "families": tuple(dict.fromkeys((*schedules, source.plan.baseline))),
        "allocation": "equal",
        "range_test": False,
        "bounds": bounds,
        "start": start,
        "groups": source.space.multipliers_of(use.params),
        "manual": manual,
        "confirm": source.plan.confirm.model_copy(update=confirm),
    }
    kept = source.plan.model_dump(exclude_unset=True, exclude={*LIMITS, "like", "trunks"})
    return StudyPlan.model_validate(
        {**kept, **length_keys(source.plan, source.facts, new), **changes}
    )
