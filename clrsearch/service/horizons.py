"""How good schedules are at each length: the plan of such a study, and what it has found."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from clrsearch.errors import PlanError, StudyError
from clrsearch.results import Horizon, snapshot
from clrsearch.search import (
    BUDGETS,
    HORIZON_FAMILY,
    ConfirmPlan,
    HorizonPlan,
    Study,
    StudyPlan,
    runs_of,
)
from clrsearch.service.paths import Storage, storage_url
from clrsearch.storage import open_database

FEWEST_LENGTHS = 2
PLANNED = ("horizon", "epochs", "families", "baseline", "allocation", "pruner", "seeds")
"""The keys that a horizon's plan has values of its own for."""


def horizon_plan(
    plan: StudyPlan,
    epochs: Sequence[int],
    *,
    rates: Sequence[float] | None = None,
    seeds: int | None = None,
) -> StudyPlan:
    """Make a plan that tells how good a schedule can be at each of these lengths.

    Args:
        plan: what to train.
        epochs: the lengths.
        rates: the peak rates to hold and to decay from; by default 1, 3 and 10 times the task's
            own.
        seeds: the number of seeds; 3 by default.

    Raises:
        PlanError: fewer than two lengths, a value that is out of range, or a plan in steps or with
            group rates.
    """
    given: dict[str, object] = {
        "epochs": tuple(epochs),
        "rates": None if rates is None else tuple(rates),
    }
    if seeds is not None:
        given["seeds"] = seeds
    try:
        horizon = HorizonPlan.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        value = first["input"]
        raise PlanError(
            f"--{first['loc'][0]}: {first['msg'][0].lower()}{first['msg'][1:]}, not {value!r}"
        ) from error
    if len(horizon.epochs) < FEWEST_LENGTHS:
        raise PlanError("--epochs: give two lengths or more, as in --epochs 5,10,20,40")
    for key in ("steps", "validate_every", "groups", *BUDGETS):
        if getattr(plan, key):
            raise PlanError(f"{key}: leave it out, a horizon cannot have it")
    return plan.model_copy(
        update={
            "horizon": horizon,
            "epochs": max(horizon.epochs),
            "trials": runs_of(horizon),
            "families": (HORIZON_FAMILY,),
            "baseline": HORIZON_FAMILY,
            "allocation": "equal",
            "pruner": "none",
            "seeds": horizon.seeds,
            "range_test": False,
            "until_settled": False,
            "trunks": None,
            "like": (),
            "start": {},
            "bounds": {},
            "manual": None,
            "confirm": ConfirmPlan(enabled=False),
        }
    )


def horizon(name: str, *, storage: Storage = None) -> Horizon:
    """What the study of :func:`horizon_plan` has found.

    Raises:
        StudyError: there is no such study, it is another kind of study, or has no result yet.
    """
    with open_database(storage_url(storage)) as database:
        found = snapshot(Study.open(database, name)).horizon
        if found is None:
            raise StudyError(f"{name} is a search: its trials all have the same length")
        return found
