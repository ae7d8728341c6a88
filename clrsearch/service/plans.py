"""Plans that follow from others: a comparison of families, a confirmation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clrsearch.errors import PlanError, ScheduleError, StudyError
from clrsearch.schedules import FAMILIES, Setting
from clrsearch.search import ConfirmPlan, Study, StudyPlan
from clrsearch.service.place import Storage, storage_url
from clrsearch.storage import open_database
from clrsearch.tasks import load_task

FEW = 5  # trials of a family, below which its best says little of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The plan of a comparison, and what its reader should know of it."""

    plan: StudyPlan
    notes: tuple[str, ...]


def comparison(plan: StudyPlan, *, task_dir: Path | None = None) -> Comparison:
    """A plan that compares the families of ``plan``, or all that fit, with as many trials each.

    Raises:
        PlanError: there are fewer trials than families.
        TaskError: the task does not load.
    """
    notes = []
    families = plan.families
    if "families" not in plan.model_fields_set:
        epochs = plan.epochs
        if epochs is None:
            folder = (task_dir or Path.cwd()).absolute()
            epochs = load_task(plan.task, options=plan.options, folder=folder).task.epochs
        reasons = {name: reason for name in FAMILIES if (reason := _misfit(name, epochs))}
        families = tuple(name for name in FAMILIES if name not in reasons)
        notes += [f"left out: {name} ({reason})" for name, reason in reasons.items()]
    families = tuple(dict.fromkeys((*families, plan.baseline)))
    if plan.trials < len(families):
        raise PlanError(
            f"trials: {plan.trials} are too few for {len(families)} families: at least one each"
        )
    if plan.trials < FEW * len(families):
        notes.append(
            f"{plan.trials} trials are fewer than {FEW} for each of the {len(families)} families: "
            "its best will say little of a family"
        )
    return Comparison(plan=plan.model_copy(update={"families": families}), notes=tuple(notes))


def _misfit(family: str, epochs: int) -> str:
    """Why a family does not fit so many epochs, or nothing."""
    setting = Setting(epochs=epochs, steps_per_epoch=1, own_rate=1.0, momentum="none")
    try:
        FAMILIES[family].space(setting)
    except ScheduleError as error:
        return str(error)
    return ""


def confirmation_plan(name: str, *, top: int, seeds: int, storage: Storage = None) -> StudyPlan:
    """The plan of a finished study, with which its best are confirmed.

    Raises:
        StudyError: there is no such study, it is unfinished, or no trial of it is complete.
    """
    with open_database(storage_url(storage)) as database:
        study = Study(database, name)
        left = study.slots.unfinished()
        if left:
            raise StudyError(
                f"{left} trials of {name} have not ended: clrsearch run goes on with them, "
                f"clrsearch cancel {name} takes out those that have not begun"
            )
        if all(record.state != "complete" for record in study.history.records()):
            raise StudyError(f"no trial of {name} is complete: there is nothing to confirm")
        return study.plan.model_copy(
            update={"confirm": ConfirmPlan(enabled=True, top=top, seeds=seeds)}
        )
