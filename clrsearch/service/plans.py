"""Derived plans: a comparison of families, and the confirmation of a finished study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clrsearch import proposals
from clrsearch.errors import PlanError, StudyError
from clrsearch.schedules import Manual, Setting
from clrsearch.search import (
    BASELINE,
    SEARCHED,
    Studies,
    Study,
    StudyPlan,
    limited,
    load_plan,
    misfit_reason,
    settings,
)
from clrsearch.service.horizons import PLANNED
from clrsearch.service.paths import Storage, storage_url
from clrsearch.service.tryout import Tryout
from clrsearch.storage import has_studies, open_database
from clrsearch.tasks import Spacing

MANY = 1000  # steps per epoch
MORE_SEEDS = 2  # of a horizon, whose trials have all ended
FEW = 5  # with fewer trials, a family's best score says little about the family


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The plan of a comparison, and notes for the user."""

    plan: StudyPlan
    notes: tuple[str, ...]


def comparison(
    plan: StudyPlan,
    *,
    name: str | None = None,
    storage: Storage = None,
    device: str | None = None,
    task_dir: Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
) -> Comparison:
    """Make a plan that compares families with an equal number of trials each.

    The families are those that ``plan`` names, else those of the existing study ``name``, else all
    that fit the task, plus hand-written rates if the plan has any. The baseline is always included.
    ``data_dir`` and ``download`` are as in :func:`clrsearch.service.run`.

    Raises:
        PlanError: there are fewer trials than families.
        TaskError: the task does not load.
    """
    notes = []
    families = plan.families
    there = None if name is None else _families_of(name, storage)
    if "families" not in plan.model_fields_set and there is not None:
        families = there
    elif "families" not in plan.model_fields_set:
        offered = [BASELINE, *SEARCHED]
        with Tryout(
            plan, device=device, task_dir=task_dir, data_dir=data_dir, download=download
        ) as tryout:
            reasons = _misfits(offered, plan, tryout)
        by_hand = () if plan.manual is None else (Manual.family,)
        families = (*(each for each in offered if each not in reasons), *by_hand)
        notes += [f"left out: {each} ({reason})" for each, reason in reasons.items()]
    families = tuple(dict.fromkeys((*families, plan.baseline)))
    if plan.trials < len(families):
        raise PlanError(
            f"trials: {plan.trials} is too few for {len(families)} families: each needs one or more"
        )
    if plan.trials < FEW * len(families):
        notes.append(
            f"{plan.trials} trials are fewer than {FEW} for each of the {len(families)} families: "
            "the best of so few says little about a family"
        )
    equal = {"families": families, "allocation": "equal"}
    return Comparison(plan=plan.model_copy(update=equal), notes=tuple(notes))


def _families_of(name: str, storage: Storage) -> tuple[str, ...] | None:
    """The families of the study ``name``; None if there is no such study."""
    url = storage_url(storage)
    if not has_studies(url):
        return None
    with open_database(url) as database:
        known = name in Studies(database).searches()
        return Study.open(database, name).plan.families if known else None


def _misfits(families: Sequence[str], plan: StudyPlan, tryout: Tryout) -> dict[str, str]:
    """Map each family that does not fit the task's horizon to the reason.

    The task is only probed for its steps per epoch if they matter: a family that fits epochs of one
    step fits longer epochs too.
    """
    epochs = plan.epochs or tryout.epochs
    if epochs is None or plan.steps is not None:
        return _reasons(families, tryout.facts)  # raises: the plan of a custom loop must set epochs
    shortest = _reasons(families, Spacing(epochs=epochs, steps_per_epoch=1))
    if (
        shortest.keys()
        == _reasons([*shortest], Spacing(epochs=epochs, steps_per_epoch=MANY)).keys()
    ):
        return shortest
    return _reasons(families, tryout.facts)


def _reasons(families: Sequence[str], spacing: Spacing) -> dict[str, str]:
    """Map each family that does not fit a run of this length to the reason."""
    setting = Setting(
        epochs=spacing.epochs,
        steps_per_epoch=spacing.steps_per_epoch,
        base_lr=1.0,
        momentum="none",
        unit=spacing.unit,
    )
    return {each: reason for each in families if (reason := misfit_reason(each, setting))}


def run_command(study: Study, **limits: object) -> str:
    """The command that resumes a study with other ``limits``, such as ``trials=150``.

    A horizon grows by seeds.
    """
    plan, horizon = study.plan, study.plan.horizon
    if horizon is None:
        return proposals.command(
            "run", name=study.name, task=plan.task, **limits, set=settings(plan)
        )
    more = int(str(limits.get("trials", 0))) > plan.trials
    how: dict[str, object] = {
        "epochs": ",".join(map(str, horizon.epochs)),
        "seeds": horizon.seeds + (MORE_SEEDS if more else 0),
    }
    if horizon.rates is not None:
        how["rates"] = ",".join(map(str, horizon.rates))
    kept = plan.model_copy(update=StudyPlan().model_dump(include=set(PLANNED)))
    return proposals.command("horizon", name=study.name, task=plan.task, **how, set=settings(kept))


def confirmation_plan(
    name: str, *, top: int | None = None, seeds: int | None = None, storage: Storage = None
) -> StudyPlan:
    """The plan of a finished study with its confirmation enabled.

    ``top`` defaults to the number of finalists in the study's plan. Without ``seeds``, seeds are
    allocated until the verdict is settled or the budget is spent.

    Raises:
        PlanError: ``top`` or ``seeds`` is out of range.
        StudyError: there is no such study, it is unfinished, or none of its trials is complete.
    """
    wanted = {"top": top, "seeds": seeds}
    given = {key: value for key, value in wanted.items() if value is not None}
    load_plan(None, {f"confirm.{key}": value for key, value in given.items()})  # check the ranges
    with open_database(storage_url(storage)) as database:
        study = Study.open(database, name)
        if study.plan.horizon is not None:
            raise StudyError(
                f"{name} runs each of its schedules on {study.plan.horizon.seeds} seeds already: "
                "clrsearch horizon with more --seeds adds some"
            )
        left = study.slots.unfinished()
        if left:
            raise StudyError(
                f"{left} trials of {name} have not ended: "
                f"{run_command(study, trials=study.plan.trials)} resumes them, "
                f"{proposals.command('cancel', name)} cancels those that have not started"
            )
        if all(record.state != "complete" for record in study.history.records()):
            raise StudyError(f"no trial of {name} is complete: there is nothing to confirm")
        asked = {"enabled": True, "seeds": seeds, **given}
        confirm = study.plan.confirm.model_copy(update=asked)
        return limited(study.plan, study.plan.trials).model_copy(update={"confirm": confirm})
