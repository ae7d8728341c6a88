"""Changed conditions under which a recommendation is checked: one key of the plan, another value.

A schedule keeps its shares of the run and its rates, as in a script in which only this value is
changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clrsearch.errors import PlanError
from clrsearch.schedules import Manual
from clrsearch.search.history import Record
from clrsearch.search.plan import LIMITS, ConfirmPlan, StudyPlan, nearest
from clrsearch.search.plan_file import load_plan
from clrsearch.search.repository import Finalist
from clrsearch.search.rescaling import length_keys, respaced, stretched, stretched_rates
from clrsearch.search.study_names import LONGEST
from clrsearch.tasks import TaskFacts, WeightDecay
from clrsearch.tasks.weight_decay import FACTOR

OPTION = "options."
LENGTHS = ("batch_size", "epochs")
KEYS = ("weight_decay", *LENGTHS, "seed")
"""The keys that may be changed, besides options of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A key of the plan with a changed value."""

    key: str
    value: Any

    @property
    def label(self) -> str:
        """``weight_decay=3x``."""
        return f"{self.key}={self.value}"

    def is_own(self, plan: StudyPlan, defaults: Mapping[str, Any]) -> bool:
        """Whether this is an option of the task that has this value by default and in the plan."""
        option = self.key.removeprefix(OPTION)
        return (
            self.key != option
            and option not in plan.options
            and option in defaults
            and defaults[option] == self.value
        )

    def plan(self, plan: StudyPlan, facts: TaskFacts, candidates: Sequence[Record]) -> StudyPlan:
        """The changed plan, in which the candidates run; nothing is searched or confirmed.

        Raises:
            PlanError: the value does not suit the study.
        """
        families = tuple(dict.fromkeys(each.family for each in candidates))
        manual = plan.manual if Manual.family in families else None
        changes: dict[str, Any] = {self.key: self.value}
        if self.key.startswith(OPTION):
            changes = {"options": {**plan.options, self.key.removeprefix(OPTION): self.value}}
        elif self.key in LENGTHS:
            new = respaced(facts, **{self.key: self.value})
            changes, manual = length_keys(plan, facts, new), stretched_rates(manual, facts, new)
        runs = {
            "families": families,
            "baseline": plan.baseline if plan.baseline in families else families[0],
            "allocation": "equal",
            "bounds": {},
            "start": {},
            "range_test": False,
            "manual": manual,
            "confirm": ConfirmPlan(enabled=False),
        }
        kept = plan.model_dump(exclude_unset=True, exclude={*LIMITS, "like", "trunks"})
        return StudyPlan.model_validate({**kept, **changes, **runs})

    def finalists(
        self, candidates: Sequence[Record], facts: TaskFacts, new: TaskFacts
    ) -> dict[int, Finalist]:
        """The candidates' schedules, found under ``facts``, for the ``new`` facts.

        Raises:
            PlanError: a schedule cycles the momentum, and the optimizer has none.
        """
        found = {}
        for each in candidates:
            params = stretched(each.params, facts, new)
            if new.momentum == "none" and params.pop("cycle_momentum", False):
                raise PlanError(
                    f"vary {self.label}: {each.family} (trial {each.number}) cycles the momentum, "
                    f"which {new.optimizer} does not have"
                )
            found[each.number] = Finalist(family=each.family, params=params)
        return found


def read_conditions(
    changes: Mapping[str, Sequence[Any]], plan: StudyPlan, facts: TaskFacts
) -> list[Condition]:
    """The conditions for values by key, in the order given and without duplicates.

    Raises:
        PlanError: a key cannot be changed, or a value is invalid or the study's own.
    """
    found = {}
    for key, values in changes.items():
        if key not in KEYS and not (key.startswith(OPTION) and key != OPTION):
            known = (*KEYS, f"{OPTION}NAME")
            raise PlanError(f"vary {key}: cannot be changed{nearest(key, known)}")
        if not values or None in values:
            raise PlanError(f"vary {key}: no value given")
        for value in values:
            load_plan(None, {key: value})  # its type and range
            condition = Condition(key=key, value=_as_read(key, value))
            _require_change(condition, plan, facts)
            found[condition.label] = condition
    return list(found.values())


def _as_read(key: str, value: Any) -> Any:
    """The value, written in one way: ``0.30x`` is ``0.3x``."""
    if key != "weight_decay" or value is None:
        return value
    read = WeightDecay.read(value)
    number = int(read.value) if read.value.is_integer() else read.value
    return f"{number}{FACTOR}" if read.relative else number


def _require_change(condition: Condition, plan: StudyPlan, facts: TaskFacts) -> None:
    """Reject a value that the study has anyway."""
    key, value = condition.key, condition.value
    own = {
        "batch_size": facts.batch_size,
        "epochs": facts.epochs,
        "seed": plan.seed,
        "weight_decay": _as_read("weight_decay", plan.weight_decay),
        **{f"{OPTION}{name}": option for name, option in plan.options.items()},
    }
    same = key in own and value == own[key]
    if key == "weight_decay":
        if plan.weight_decay is not None and WeightDecay.read(value).relative:
            raise PlanError(
                f"vary {condition.label}: the study's own weight_decay is {plan.weight_decay}, "
                "so give a number"
            )
        same = same or WeightDecay.read(value) == WeightDecay(value=1.0, relative=True)
    if same:
        raise PlanError(f"vary {condition.label}: that is how the study was searched")
    if len(condition.label) > LONGEST or not condition.label.isprintable():
        raise PlanError(f"vary {key}: the value is too long or unprintable")
