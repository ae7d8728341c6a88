"""What a study was asked to do: read from TOML and options, and stored with the study."""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from clrsearch.errors import PlanError
from clrsearch.schedules import FAMILIES, Manual
from clrsearch.tasks import BUILT_IN

BASELINE = "constant"
LARGEST_FILE = 1_000_000  # bytes of a study file
BASELINE_EVERY = 10
"""One slot in so many goes to the baseline."""
ANY = "any"
"""In place of a slot's family: the one that the surrogate leads to."""
SEARCHED = tuple(family for family in FAMILIES if family not in (BASELINE, Manual.family))
"""The families of a plan that names none, where they fit."""
LED = "cyclic"
"""The family that no surrogate leads away from: it keeps ..."""
LED_PLACES = (0, 2)
"""... these of every ..."""
LED_EVERY = 5
"""... so many slots that are not the baseline's: more than a third of all."""
EARLIER: Mapping[str, Any] = {"sampler": "tpe", "allocation": "equal", "seeds": 1}
"""What a plan means that was stored before there was a choice."""
STORED = "stored"
"""The context of the validation of a plan that is stored: it may be larger than a new one."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that TOML takes without quotes

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Bound = Scalar | tuple[Scalar, ...]
"""One value fixes a parameter, two numbers are the ends of its range, strings are its choices."""
Number = StrictInt | StrictFloat

MOST_TRIALS = 100_000
MOST_EPOCHS = 1_000_000
MOST_FINALISTS = 100
MOST_SEEDS = 1000
MOST_RETRIES = 100
MOST_SEARCH_SEEDS = 100
MOST_SAMPLES = 10_000_000  # of a batch

_WANTED = {
    "bounds": "neither a number, a text, true or false, nor a list",
    "options": "neither a number, a text, true or false, nor a list",
    "groups": "neither a number nor the two ends of a range",
    "manual": 'neither a list of [EPOCHS, RATE] nor "file.py:NAME"',
}
"""What a reader is told in place of a union's alternatives."""
_DEPTH = {"bounds": 3, "options": 2, "groups": 2, "manual": 1}  # parts of the key of such a value
_TYPES = {
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
}
_TABLES = ("mapping_type", "dict_type", "model_type")
"""Pydantic's kinds of errors in TOML's words."""


def at_most(most: int) -> AfterValidator:
    """A new plan's upper limit: beyond it there is a slip of the pen, not a study."""

    def check(value: int, info: ValidationInfo) -> int:
        if value > most and info.context != STORED:
            raise PydanticCustomError("at_most", "at most {most}", {"most": f"{most:,}"})
        return value

    return AfterValidator(check)


class ConfirmPlan(BaseModel):
    """Whether and how the best are run again on fresh seeds: ``top`` besides the baseline.

    Each on so many ``seeds``; without a number on as many as it takes to tell them apart, while the
    confirmation has at most ``share`` of the study's epochs. What is recommended may be expected to
    lose ``tolerance`` standard deviations of the noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: StrictBool = True
    top: Annotated[StrictInt, at_most(MOST_FINALISTS)] = Field(default=5, ge=1)
    seeds: Annotated[StrictInt, at_most(MOST_SEEDS)] | None = Field(default=None, ge=1)
    share: Number = Field(default=0.25, gt=0, lt=1)
    tolerance: Number = Field(default=0.1, ge=0, allow_inf_nan=False)


class StudyPlan(BaseModel):
    """Everything that a study is asked to do. What is None here is the task's to say.

    ``bounds`` maps a family to its parameters' bounds, ``groups`` a parameter group of the task's
    optimizer to a factor on its rates, or to the ends of the range in which that is searched. With
    ``range_test`` the rates are searched within what a range test finds.
    ``sampler`` proposes: the surrogate over all families, or one of Optuna's for each of them.
    ``allocation`` says how the trials are shared among the families: ``led`` by the surrogate, or
    ``equal``, as they are among families that are named and by Optuna's samplers. Trials begin from
    so many ``seeds`` in turn; the runs of one seed share their first weights and the order of the
    data.
    ``precision`` is in what numbers the model computes, see :mod:`clrsearch.training.precision`.
    ``args`` is the command line that the task's file finds, as one would type it in a shell.
    ``manual`` are the rates of the family of that name. ``trials`` counts slots: the retry of a
    failed trial does not use up another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "denoise"
    epochs: Annotated[StrictInt, at_most(MOST_EPOCHS)] | None = Field(default=None, ge=1)
    batch_size: Annotated[StrictInt, at_most(MOST_SAMPLES)] | None = Field(default=None, ge=1)
    metric: str | None = Field(default=None, min_length=1)
    direction: Literal["minimize", "maximize"] | None = None
    trials: Annotated[StrictInt, at_most(MOST_TRIALS)] = Field(default=100, ge=1)
    families: tuple[str, ...] = Field(default=SEARCHED, min_length=1)
    baseline: str = BASELINE
    allocation: Literal["led", "equal"] = "led"
    sampler: Literal["surrogate", "tpe", "random", "qmc", "gp"] = "surrogate"
    range_test: StrictBool = False
    seed: StrictInt = Field(default=0, ge=0)
    seeds: Annotated[StrictInt, at_most(MOST_SEARCH_SEEDS)] = Field(default=4, ge=1)
    pruner: Literal["lenient", "none", "median", "halving", "hyperband"] = "lenient"
    stepsize: Literal["whole-cycles", "integers"] = "whole-cycles"
    precision: Literal["float32", "bf16"] = "float32"
    retries: Annotated[StrictInt, at_most(MOST_RETRIES)] = Field(default=1, ge=0)
    args: StrictStr | None = None
    options: Mapping[str, Scalar] = Field(default_factory=dict)
    bounds: Mapping[str, Mapping[str, Bound]] = Field(default_factory=dict)
    groups: Mapping[str, Number | tuple[Number, Number]] = Field(default_factory=dict)
    manual: StrictStr | tuple[tuple[Number | tuple[Number, Number], Number], ...] | None = None
    confirm: ConfirmPlan = ConfirmPlan()

    @model_validator(mode="before")
    @classmethod
    def _shares_are_equal_unless_the_surrogate_leads(cls, content: Any) -> Any:
        if isinstance(content, dict) and _implies_equal_shares(content):
            return {"allocation": "equal", **content}
        return content

    @field_validator("args")
    @classmethod
    def _is_a_command_line(cls, args: str | None) -> str | None:
        try:
            shlex.split(args or "")
        except ValueError as error:
            raise PydanticCustomError("args", "every quote must be closed") from error
        return args

    @property
    def arguments(self) -> tuple[str, ...]:
        """``args``, split as a shell does."""
        return tuple(shlex.split(self.args or ""))

    def labels(self, first: int) -> list[str]:
        """The family that each slot is for, or ANY.

        One in ten is for the baseline: of the first ten slots that of the number ``first``, then
        every tenth. The others are the families' by turns; or, where the surrogate leads, two of
        five are for cyclic schedules.
        """
        if self.baseline in self.families:
            return [self._label(slot) for slot in range(self.trials)]
        found, others = [], 0
        for slot in range(self.trials):
            tens, rest = divmod(slot, BASELINE_EVERY)
            if slot == first or (tens and rest == BASELINE_EVERY - 1):
                found.append(self.baseline)
            else:
                found.append(self._label(others))
                others += 1
        return found

    def _label(self, place: int) -> str:
        """What the slot at a place is for, among those that are not the baseline's."""
        if self.allocation == "equal" or len(self.families) == 1:
            return self.families[place % len(self.families)]
        kept = LED in self.families and place % LED_EVERY in LED_PLACES
        return LED if kept else ANY

    @property
    def searched(self) -> tuple[str, ...]:
        """The families that get slots, the baseline included."""
        return tuple(dict.fromkeys((*self.families, self.baseline)))


def _implies_equal_shares(content: Mapping[str, Any]) -> bool:
    """Whether the families have equal shares of a plan that says nothing of it."""
    return "families" in content or content.get("sampler", "surrogate") != "surrogate"


def load_plan(path: Path | None, changes: Mapping[str, Any] | None = None) -> StudyPlan:
    """The plan of a study file, or the default one, with ``changes`` laid over it.

    ``changes`` maps keys to values as the file would hold them; a dotted key reaches into a table.

    Raises:
        PlanError: no such file, not TOML, an unknown key (the nearest one is named) or a bad value.
    """
    content = {} if path is None else _read(path)
    for key, value in (changes or {}).items():
        _lay_over(content, key, value)
    try:
        plan = StudyPlan.model_validate(content)
    except ValidationError as error:
        raise PlanError(_explain(error.errors()[0], path)) from error
    require_plan(plan)
    return plan


def require_plan(plan: StudyPlan) -> None:
    """Refuse a plan that no task could be searched with.

    Raises:
        PlanError: naming the key.
    """
    _require_families(plan)
    if plan.allocation == "led" and plan.sampler != "surrogate":
        raise PlanError(
            "allocation: only the surrogate can lead from family to family; with "
            f"sampler={plan.sampler} it is equal"
        )
    _require_bounds(plan)
    _require_rates(plan)


def refuse_task(text: str) -> None:
    """Refuse a task where a study file is wanted.

    Raises:
        PlanError: it says how a task is named.
    """
    place, colon, attribute = text.partition(":")
    if text in BUILT_IN or (colon and place and attribute.isidentifier()):
        raise PlanError(f"{text} is a task, not a study file: write --task {text}")
    if text.endswith(".py"):
        raise PlanError(f"{text} is no study file; a task in it is named by --task {text}:NAME")


def _require_families(plan: StudyPlan) -> None:
    if plan.baseline == "none":
        raise PlanError(
            "baseline: every study has one, which takes every tenth trial; "
            f"it is {BASELINE!r} unless another family is named"
        )
    for key, families in (("families", plan.families), ("baseline", (plan.baseline,))):
        for family in families:
            if family not in FAMILIES:
                raise PlanError(f"{key}: no family {family!r}{nearest(family, FAMILIES)}")
            if families.count(family) > 1:
                raise PlanError(f"{key}: {family} is named {families.count(family)} times")


def _require_bounds(plan: StudyPlan) -> None:
    """Refuse what no task could be searched within."""
    given: list[tuple[str, object]] = []
    given += [(f"groups.{name}", each) for name, each in plan.groups.items()]
    for family, bounds in plan.bounds.items():
        if family not in plan.searched:
            raise PlanError(
                f"bounds.{family}: not a family of this study{nearest(family, plan.searched)}"
            )
        given += [(f"bounds.{family}.{name}", each) for name, each in bounds.items()]
    for key, bound in given:
        values = bound if isinstance(bound, tuple) else (bound,)
        if not values:
            raise PlanError(f"{key}: no value is given")
        for value in values:
            if not _is_finite(value):
                raise PlanError(f"{key}: {shorten(str(value), 40)} is not a finite number")
        number = not isinstance(values[0], str | bool)
        if number and len(values) == 2 and values[0] == values[1]:
            raise PlanError(f"{key}: both ends are {values[0]}; to fix it, write {key}={values[0]}")


def _require_rates(plan: StudyPlan) -> None:
    for where, rate in plan.manual if isinstance(plan.manual, tuple) else ():
        for value in (*(where if isinstance(where, tuple) else (where,)), rate):
            if not _is_finite(value):
                raise PlanError(f"manual: {shorten(str(value), 40)} is not a finite number")


def _is_finite(value: object) -> bool:
    """Whether it is no number, or one that a float can hold."""
    try:
        return not isinstance(value, int | float) or math.isfinite(value)
    except OverflowError:  # of a whole number
        return False


def settings(plan: StudyPlan) -> list[str]:
    """The keys that make a plan another study than the default one, as KEY=VALUE.

    The task is left aside, and so are ``trials`` and ``confirm``, as by :func:`differences`.
    """
    aside = {"task", "trials", "confirm"}
    content = plan.model_dump(mode="json", exclude_defaults=True, exclude=aside)
    content.pop("allocation", None)
    if _implies_equal_shares(content) == (plan.allocation == "led"):
        content["allocation"] = plan.allocation
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in _flat(content)]


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key; TOML reads them as JSON writes them."""
    for key, value in content.items():
        name = above + (key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def differences(stored: StudyPlan, asked: StudyPlan) -> list[str]:
    """The keys in which two plans ask for different studies, with both values.

    A study may grow and be confirmed in another way: ``trials`` and ``confirm`` are left aside. So
    are families that are not named, and what an earlier version left no choice about.
    """
    aside = {"trials", "confirm"}
    if "families" not in asked.model_fields_set:
        aside.add("families")
    earlier = {key for key, value in EARLIER.items() if getattr(stored, key) == value}
    aside |= earlier - asked.model_fields_set
    old, new = stored.model_dump(exclude=aside), asked.model_dump(exclude=aside)
    return [
        f"{key} is {_shown(old[key])} there and {_shown(new[key])} here"
        for key in old
        if old[key] != new[key]
    ]


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message about an unknown ``word``: the nearest known one, or all."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(names)}"


def _shown(value: object) -> str:
    return "the task's own" if value is None else repr(value)


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".py" or not path.exists():
        refuse_task(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise PlanError(f"{path} is no study file: it holds more than {LARGEST_FILE} bytes")
        return read_toml(content.decode("utf-8-sig"))  # editors of Windows begin with a mark
    except FileNotFoundError:
        raise PlanError(f"no such study file: {path}{_toml_files_near(path)}") from None
    except OSError as error:
        raise PlanError(f"the study file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PlanError(f"{path} is not UTF-8 text: see line {line}") from error
    except ValueError as error:
        raise PlanError(f"{path} is not valid TOML: {error}") from error


def read_toml(text: str) -> dict[str, Any]:
    """What a text in TOML holds.

    Raises:
        ValueError: it is none, or numbers or brackets of it go on for thousands of characters.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _toml_files_near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [file.name for file in path.parent.glob("*.toml")]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _lay_over(content: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = _parts(key)
    for table in tables:
        inner = content.setdefault(table, {})
        if not isinstance(inner, dict):
            raise PlanError(f"{key}: {table} is not a table")
        content = inner
    content[last] = value


def _parts(key: str) -> list[str]:
    """The parts of a dotted key, of which TOML lets one be quoted."""
    try:
        found: Any = read_toml(f"{key} = 0")
    except ValueError as error:
        raise PlanError(
            f"{key!r} is no key of a study; a key is written like bounds.cyclic.max_lr"
        ) from error
    parts = []
    while isinstance(found, dict):
        ((part, found),) = found.items()
        parts.append(part)
    return parts


def _explain(error: ErrorDetails, path: Path | None) -> str:
    where = f"{path}: " if path else ""
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
    if error["type"] == "extra_forbidden":
        inside = {"confirm": [f"confirm.{name}" for name in ConfirmPlan.model_fields]}
        known = inside.get(key.partition(".")[0], StudyPlan.model_fields)
        return f"{where}unknown key {key}{nearest(key, known)}"
    if error["type"] in _TABLES:
        return f"{where}{key}: must be a table, not {error['input']!r}"
    top = str(error["loc"][0])
    if top in _WANTED:
        value = ".".join(map(str, error["loc"][: _DEPTH[top]]))
        return f"{where}{value}: {error['input']!r} is {_WANTED[top]}"
    if error["type"] in _TYPES:
        return f"{where}{key}: {_TYPES[error['type']]}, not {error['input']!r}"
    return f"{where}{key}: {error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"
