"""A study's plan: what it is asked to do, as stored with it."""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
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
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clrsearch.errors import PlanError
from clrsearch.schedules import (
    FAMILIES,
    Manual,
    MultiStep,
    ScheduleFree,
    Step,
    WarmupStableDecay,
)
from clrsearch.tasks import WeightDecay

BASELINE = "constant"
BASELINE_EVERY = 10
"""One in this many slots goes to the baseline."""
FIRST_SEED = 500_000
"""Of a search's additional seeds: far from those of its confirmation."""
ANY = "any"
"""Family of a slot for which the surrogate chooses the family."""
SEARCHED = tuple(
    family for family in FAMILIES if family not in (BASELINE, Manual.family, ScheduleFree.family)
)
"""Families of a plan that names none, as far as they fit the task."""
HOLDING = (BASELINE, *(each.family for each in (Step, MultiStep, WarmupStableDecay)))
"""Families that hold their peak rate for a while."""
LED = "cyclic"
"""The family with a guaranteed share of the slots; the surrogate chooses the rest."""
LED_PLACES = (0, 2)
"""Its positions in each run of ..."""
LED_EVERY = 5
"""... this many slots that are not the baseline's: more than a third of all."""
EARLIER: Mapping[str, Any] = {"sampler": "tpe", "allocation": "equal", "seeds": 1}
"""Values of stored plans that predate these options."""
LIMITS = ("trials", "minutes", "gpu_hours", "epochs_total", "until_settled")
"""The keys that say when a search ends. A command that has any of them replaces all."""
BUDGETS = ("minutes", "gpu_hours", "epochs_total")
"""Those that limit the whole study, its confirmation included."""
AUTO = "auto"
"""Value of ``trials`` that means ``until_settled``."""
STORED = "stored"
"""Validation context of a stored plan, which may exceed the limits for new plans."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a TOML key that needs no quotes

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Bound = Scalar | tuple[Scalar, ...]
"""One value fixes a parameter, two numbers bound its range, strings are its choices."""
Number = StrictInt | StrictFloat

MOST_TRIALS = 100_000
MOST_UNTIL_SETTLED = 200
"""Limit on the trials of a search that ends when it is settled."""
MOST_EPOCHS = 1_000_000
MOST_STEPS = 50_000_000
MOST_EPOCHS_TOTAL = 1_000_000_000
MOST_FINALISTS = 100
MOST_SEEDS = 1000
MOST_RETRIES = 100
MOST_SEARCH_SEEDS = 100
MOST_SAMPLES = 10_000_000  # per batch


def search_seed(turn: int) -> int:
    """The index of a search's seed, by its turn: the first one is that of a single seed, 0."""
    return turn and FIRST_SEED + turn


def turn_of(seed_index: int) -> int:
    """Invert :func:`search_seed`."""
    return seed_index and seed_index - FIRST_SEED


def at_most(most: int) -> AfterValidator:
    """Upper limit for new plans, to catch typos; stored plans may exceed it."""

    def check(value: int, info: ValidationInfo) -> int:
        if value > most and info.context != STORED:
            raise PydanticCustomError("at_most", "must be at most {most}", {"most": f"{most:,}"})
        return value

    return AfterValidator(check)


class ConfirmPlan(BaseModel):
    """Whether and how the best schedules are confirmed on fresh seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: StrictBool = True
    """Whether to run the best schedules again on fresh seeds."""
    top: Annotated[StrictInt, at_most(MOST_FINALISTS)] = Field(default=5, ge=1)
    """Number of schedules to confirm besides the baseline's best; one of each family first."""
    seeds: Annotated[StrictInt, at_most(MOST_SEEDS)] | None = Field(default=None, ge=1)
    """Fixed number of seeds per schedule. Without it, as many as it takes to tell the schedules
    apart within ``share``."""
    share: Number = Field(default=0.25, gt=0, lt=1)
    """Largest share of the study's epochs spent on the confirmation if ``seeds`` is not set."""
    tolerance: Number = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Expected loss against the best, in standard deviations of the noise, that a simpler schedule
    may have and still be recommended."""


class HorizonPlan(BaseModel):
    """The runs of ``clrsearch horizon``; see :mod:`clrsearch.search.horizon_runs`.

    Attributes:
        epochs: the lengths.
        rates: the rates that are held; None for those near the task's own.
        seeds: the number of seeds that each schedule is run on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: tuple[Annotated[StrictInt, at_most(MOST_EPOCHS), Field(ge=1)], ...]
    rates: tuple[Annotated[Number, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    seeds: Annotated[StrictInt, at_most(MOST_SEEDS)] = Field(default=3, ge=2)

    @field_validator("epochs", "rates")
    @classmethod
    def _in_order(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(sorted(set(values)))


class StudyPlan(BaseModel):
    """A study's settings; the keys of a study file. None means the task's own value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: str = "denoise"
    """What is trained: the name of a built-in task, ``package.module:NAME``, or ``file.py:NAME``
    with a file beside the study file. NAME is a task class or a function ``train(run)``."""
    epochs: Annotated[StrictInt, at_most(MOST_EPOCHS)] | None = Field(default=None, ge=1)
    """Length of every run, in epochs. Defaults to the task's."""
    steps: Annotated[StrictInt, at_most(MOST_STEPS)] | None = Field(default=None, ge=1)
    """Length of every run in optimizer steps, in place of ``epochs``; needs ``validate_every``."""
    validate_every: Annotated[StrictInt, at_most(MOST_STEPS)] | None = Field(default=None, ge=1)
    """Optimizer steps between two validations, after which trials are judged and saved. Without it,
    that is after each epoch."""
    batch_size: Annotated[StrictInt, at_most(MOST_SAMPLES)] | None = Field(default=None, ge=1)
    """Samples per batch, of all GPUs of a trial together. Defaults to the task's."""
    metric: str | None = Field(default=None, min_length=1)
    """Validation metric that schedules are compared by. Defaults to the task's; a ``train(run)``
    needs it."""
    direction: Literal["minimize", "maximize"] | None = None
    """Whether a smaller or a larger ``metric`` is better. Defaults to the task's; a ``train(run)``
    needs it."""
    trials: Annotated[StrictInt, at_most(MOST_TRIALS)] = Field(default=100, ge=1)
    """Number of trials; it may grow later. Retrying a failed trial does not use up another one.
    With a budget (``minutes``, ``gpu_hours``, ``epochs_total``), at most so many. ``"auto"`` sets
    ``until_settled``."""
    minutes: Number | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Time for the whole study, confirmation included, in minutes from the start of the command."""
    gpu_hours: Number | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Training time of all trials together, in hours, times the GPUs that train each. On CPUs,
    hours of the workers."""
    epochs_total: Annotated[StrictInt, at_most(MOST_EPOCHS_TOTAL)] | None = Field(
        default=None, ge=1
    )
    """Epochs of all trials together; validations, if the length is in steps."""
    until_settled: StrictBool = False
    """Whether the search ends once another trial promises too little."""
    families: tuple[str, ...] = Field(default=SEARCHED, min_length=1)
    """Families of schedules to search. Defaults to all that fit the task, except
    ``manual`` and ``schedule_free``."""
    baseline: str = BASELINE
    """Family that all others have to beat; it gets every tenth trial unless it is in ``families``.
    """
    allocation: Literal["led", "equal"] = "led"
    """How trials are shared among families: ``led`` by the surrogate, or ``equal``. Defaults to
    ``equal`` if ``families`` is set or the sampler is one of Optuna's."""
    sampler: Literal["surrogate", "tpe", "random", "qmc", "gp"] = "surrogate"
    """What proposes trials: a surrogate over all families, or one of Optuna's samplers for each
    family."""
    range_test: StrictBool = False
    """Whether to search learning rates only within the range that a range test finds."""
    seed: StrictInt = Field(default=0, ge=0)
    """Seed of the whole study."""
    seeds: Annotated[StrictInt, at_most(MOST_SEARCH_SEEDS)] = Field(default=4, ge=1)
    """Number of seeds that trials cycle through; runs of one seed share initial weights and data
    order."""
    pruner: Literal["lenient", "none", "median", "halving", "hyperband"] = "lenient"
    """What stops hopeless trials early: ``lenient`` judges a schedule only where its rate is low,
    ``none`` stops nothing, the others are Optuna's."""
    stepsize: Literal["whole-cycles", "integers"] = "whole-cycles"
    """Which cycles ``cyclic`` searches: a whole number of them in a run, or half cycles of whole
    epochs."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Number format of the model's computations; half precision uses torch's autocast."""
    deterministic: StrictBool = False
    """Whether results on a GPU have to repeat exactly, at the price of speed."""
    retries: Annotated[StrictInt, at_most(MOST_RETRIES)] = Field(default=1, ge=0)
    """How often a trial whose code raised an exception is tried again."""
    trunks: Annotated[StrictInt, at_most(MOST_TRIALS)] | None = Field(default=None, ge=1)
    """About the most beginnings (peak rate, warm-up and seed) of schedules that hold their rate;
    trials that share one train it once. Without it, as many as are proposed."""
    weight_decay: Number | StrictStr | None = None
    """Weight decay of the optimizer's parameter groups that have one, or a factor on the task's
    own, such as ``"0.3x"``. For task classes only."""
    args: StrictStr | None = None
    """Command line that the task's file sees, in shell syntax."""
    options: Mapping[str, Scalar] = Field(default_factory=dict)
    """Fields of the task class, or values that a ``train(run)`` finds in ``run.options``."""
    bounds: Mapping[str, Mapping[str, Bound]] = Field(default_factory=dict)
    """What to search of each family: two numbers are a range, one value is fixed, a list of texts
    or booleans are choices."""
    groups: Mapping[str, Number | tuple[Number, Number]] = Field(default_factory=dict)
    """Factor on the rates of a parameter group of the task's optimizer, by the group's ``name``:
    one value, or a range to search."""
    start: Mapping[str, Number] = Field(default_factory=dict)
    """Peak learning rate of a family's first trial, in place of its usual first settings."""
    manual: StrictStr | tuple[tuple[Number | tuple[Number, Number], Number], ...] | None = None
    """Rates of the family ``manual``: pairs of epochs (how many, or the first and the last) and a
    rate, or the name of a function ``rate(step, steps_per_epoch)``, such as ``"file.py:NAME"``."""
    like: tuple[StrictStr, ...] = ()
    """Stored studies of similar tasks, the most alike first; their best schedules are tried first
    and their runs guide the search."""
    confirm: ConfirmPlan = ConfirmPlan()
    """How the best schedules are run again on fresh seeds."""
    horizon: HorizonPlan | None = None
    """Set in place of a search, by ``clrsearch horizon``; not a key of study files."""

    @model_validator(mode="before")
    @classmethod
    def _shares_are_equal_unless_the_surrogate_leads(cls, content: Any) -> Any:
        if isinstance(content, dict) and _implies_equal_shares(content):
            return {"allocation": "equal", **content}
        return content

    @field_validator("options", mode="before")
    @classmethod
    def _tables_of_options_are_dotted_names(cls, options: Any) -> Any:
        return named_options(options) if isinstance(options, dict) else options

    @field_validator("like", mode="before")
    @classmethod
    def _one_is_enough(cls, like: Any) -> Any:
        return (like,) if isinstance(like, str) else like

    @model_validator(mode="before")
    @classmethod
    def _a_budget_leaves_the_trials_open(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        if content.get("trials") == AUTO:
            return {**content, "trials": MOST_UNTIL_SETTLED, "until_settled": True}
        budgeted = any(content.get(key) is not None for key in BUDGETS)
        return {"trials": MOST_TRIALS, **content} if budgeted else content

    @field_validator("args")
    @classmethod
    def _is_a_command_line(cls, args: str | None) -> str | None:
        try:
            shlex.split(args or "")
        except ValueError as error:
            raise PydanticCustomError("args", "must have matching quotes") from error
        return args

    @field_validator("weight_decay")
    @classmethod
    def _is_a_weight_decay(cls, given: float | str | None) -> float | str | None:
        if given is not None:
            WeightDecay.read(given)
        return given

    @property
    def budgeted(self) -> bool:
        """Whether time, GPU hours or epochs limit the study."""
        return any(getattr(self, key) is not None for key in BUDGETS)

    @property
    def open_ended(self) -> bool:
        """Whether slots are added while the study runs; ``trials`` is then their upper limit."""
        return self.until_settled or self.budgeted

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The keys whose values are not the usual ones."""
        for name, value in super().__repr_args__():
            field = type(self).model_fields.get(name or "")
            if field is None or value != field.get_default(call_default_factory=True):
                yield name, value

    @property
    def arguments(self) -> tuple[str, ...]:
        """``args``, split like a shell does."""
        return tuple(shlex.split(self.args or ""))

    def labels(self, first: int) -> list[str]:
        """The family of each slot, or ANY.

        Every tenth slot goes to the baseline, except that among the first ten it is slot ``first``.
        The others cycle through the families; with ``allocation="led"``, two of five are cyclic and
        the rest are ANY, as are the first five of a study that starts from earlier ones.
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
        """Label of the slot at this position among the slots that are not the baseline's."""
        if self.allocation == "equal" or len(self.families) == 1:
            return self.families[place % len(self.families)]
        if LED not in self.families or (self.like and place < LED_EVERY):
            return ANY
        return LED if place % LED_EVERY in LED_PLACES else ANY

    @property
    def searched(self) -> tuple[str, ...]:
        """The families that get slots, including the baseline."""
        return tuple(dict.fromkeys((*self.families, self.baseline)))


def _implies_equal_shares(content: Mapping[str, Any]) -> bool:
    """Whether a plan without ``allocation`` means equal shares."""
    return "families" in content or content.get("sampler", "surrogate") != "surrogate"


def require_plan(plan: StudyPlan) -> None:
    """Reject a plan that is invalid for every task.

    Raises:
        PlanError: naming the key.
    """
    _require_families(plan)
    for name in plan.like:
        if plan.like.count(name) > 1:
            raise PlanError(f"like: {name} is listed {plan.like.count(name)} times")
    if plan.allocation == "led" and plan.sampler != "surrogate":
        raise PlanError(
            f"allocation: led needs sampler=surrogate; with sampler={plan.sampler} it must be equal"
        )
    _require_trunks(plan)
    _require_bounds(plan)
    _require_rates(plan)


def _require_families(plan: StudyPlan) -> None:
    if plan.baseline == "none":
        raise PlanError(
            "baseline: every study has one, which gets every tenth trial; "
            f"the default is {BASELINE!r}"
        )
    for key, families in (("families", plan.families), ("baseline", (plan.baseline,))):
        for family in families:
            if family not in FAMILIES:
                raise PlanError(f"{key}: unknown family {family!r}{nearest(family, FAMILIES)}")
            if families.count(family) > 1:
                raise PlanError(f"{key}: {family} is listed {families.count(family)} times")


def _require_trunks(plan: StudyPlan) -> None:
    if plan.trunks is None:
        return
    if plan.sampler != "surrogate":
        raise PlanError(f"trunks: needs sampler=surrogate, not sampler={plan.sampler}")
    if plan.trunks < plan.seeds:
        raise PlanError(
            f"trunks: must be at least {plan.seeds}, one for each of the seeds, not {plan.trunks}; "
            "set seeds to fewer"
        )
    if not set(plan.families) & set(HOLDING) - {BASELINE}:
        raise PlanError(
            f"trunks: none of the families holds its rate, as {', '.join(HOLDING[1:])} do"
        )


def _require_bounds(plan: StudyPlan) -> None:
    """Reject bounds that are invalid for every task."""
    given: list[tuple[str, object]] = []
    given += [(f"groups.{name}", each) for name, each in plan.groups.items()]
    given += [(f"start.{family}", each) for family, each in plan.start.items()]
    for key in (
        *(f"bounds.{each}" for each in plan.bounds),
        *(f"start.{each}" for each in plan.start),
    ):
        family = key.partition(".")[2]
        if family not in plan.searched:
            raise PlanError(f"{key}: not a family of this study{nearest(family, plan.searched)}")
    for family, bounds in plan.bounds.items():
        given += [(f"bounds.{family}.{name}", each) for name, each in bounds.items()]
    for key, bound in given:
        values = bound if isinstance(bound, tuple) else (bound,)
        if not values:
            raise PlanError(f"{key}: no value given")
        for value in values:
            if not _is_finite(value):
                raise PlanError(f"{key}: {shorten(str(value), 40)} is not a finite number")
        number = not isinstance(values[0], str | bool)
        if number and len(values) == 2 and values[0] == values[1]:
            raise PlanError(
                f"{key}: both ends are {values[0]}; for a fixed value, use {key}={values[0]}"
            )


def _require_rates(plan: StudyPlan) -> None:
    for where, rate in plan.manual if isinstance(plan.manual, tuple) else ():
        for value in (*(where if isinstance(where, tuple) else (where,)), rate):
            if not _is_finite(value):
                raise PlanError(f"manual: {shorten(str(value), 40)} is not a finite number")


def _is_finite(value: object) -> bool:
    """Whether the value is finite as a float; True for non-numbers."""
    try:
        return not isinstance(value, int | float) or math.isfinite(value)
    except OverflowError:  # integer too large for a float
        return False


def named_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in tables by their dotted names, as Hydra and most command lines write them.

    Raises:
        PlanError: one is given twice, in a table and by its dotted name.
    """
    named: dict[str, Any] = {}
    for name, value in _dotted(options):
        if name in named:
            raise PlanError(f"options: {name} is given twice, in a table and with a dot")
        named[name] = value
    return named


def _dotted(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def settings(plan: StudyPlan) -> list[str]:
    """The settings that differ from the default plan, as KEY=VALUE.

    The task, ``trials``, budgets and ``confirm`` are skipped, as in :func:`differences`.
    """
    aside = {"task", *LIMITS, "confirm"}
    content = plan.model_dump(mode="json", exclude_defaults=True, exclude=aside)
    content.pop("allocation", None)
    if _implies_equal_shares(content) == (plan.allocation == "led"):
        content["allocation"] = plan.allocation
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in _flat(content)]


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested tables to dotted keys; JSON literals of these values are valid TOML."""
    for key, value in content.items():
        parts = key.split(".") if above == "options." else [key]
        name = above + ".".join(
            part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            for part in parts
        )
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def differences(stored: StudyPlan, asked: StudyPlan) -> list[str]:
    """The keys in which two plans describe different studies, with both values.

    ``trials``, budgets, ``confirm`` and a horizon's seeds may change during a study, so they are
    skipped; so are families and earlier studies if the new plan names none, the seed of a study
    that starts from earlier ones, and options that did not exist when the old plan was stored.
    """
    chosen = {"families", "like", *(["seed"] if stored.like else [])}
    aside = {*LIMITS, "confirm"} | (chosen - asked.model_fields_set)
    if stored.horizon is not None and asked.horizon is not None:
        aside.add("seeds")
        more = {"seeds": stored.horizon.seeds}
        asked = asked.model_copy(update={"horizon": asked.horizon.model_copy(update=more)})
    earlier = {key for key, value in EARLIER.items() if getattr(stored, key) == value}
    aside |= earlier - asked.model_fields_set
    old, new = stored.model_dump(exclude=aside), asked.model_dump(exclude=aside)
    return [
        f"{key} is {_shown(old[key])} there and {_shown(new[key])} here"
        for key in old
        if old[key] != new[key]
    ]


def nearest(word: str, known: Iterable[str]) -> str:
    """Hint to append to an error about an unknown ``word``: the nearest known one, or all."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; available: {', '.join(names)}"


def _shown(value: object) -> str:
    return "the task's own" if value is None else repr(value)
