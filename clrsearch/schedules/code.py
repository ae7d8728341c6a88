"""Renders a schedule as a standalone Python file, and verifies it by executing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np

from clrsearch.errors import ScheduleError
from clrsearch.schedules.parameters import Momentum, RateFunction
from clrsearch.schedules.schedule import Schedule, Trace

TOLERANCE = 1e-12  # relative to the peak rate: float64 rounding over a few operations
GATHERED = 10_000  # steps over which torch's recursive schedulers stay within the tolerance

BY_EPOCHS = (
    "for epoch in range(EPOCHS):",
    "    for inputs, targets in loader:",
    "        ...",
    "        optimizer.step()",
    "        scheduler.step()  # after every batch, not once per epoch",
)
BY_STEPS = (
    "for step in range(TOTAL_STEPS):",
    "    ...",
    "    optimizer.step()",
    "    scheduler.step()  # after every step of the optimizer",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What a generated file states besides the schedule.

    Attributes:
        title: its first line.
        found: how the schedule was found, label to text.
        optimizer: describes the optimizer the schedule was found with.
        epochs: the length of the run.
        steps_per_epoch: the optimizer steps per epoch it was found with.
        total_steps: the length of the run in optimizer steps, to be stated in place of both: where
            there are no epochs, or they differ in length.
        multipliers: the factors found for the rates of the parameter groups, on top of the
            optimizer's own ratios; the first group's is 1.
    """

    title: str
    found: Mapping[str, str]
    optimizer: str
    epochs: int
    steps_per_epoch: float
    total_steps: int | None = None
    multipliers: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        """Escape the texts for use in a docstring."""
        found = {inert(label): inert(text) for label, text in self.found.items()}
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "title", inert(self.title))
        object.__setattr__(self, "optimizer", inert(self.optimizer))

    @property
    def horizon(self) -> int:
        """The number of optimizer steps in the run."""
        return self.total_steps or round(self.epochs * self.steps_per_epoch)

    @property
    def argument(self) -> Literal["steps_per_epoch", "total_steps"]:
        """What the length of another run is given as."""
        return "steps_per_epoch" if self.total_steps is None else "total_steps"

    @property
    def argument_found(self) -> float:
        """The value of :attr:`argument` in the run it was found with."""
        return self.steps_per_epoch if self.total_steps is None else self.total_steps

    @property
    def constants(self) -> Mapping[str, float]:
        """The lengths that the file states, by name."""
        epochs = {"EPOCHS": self.epochs} if self.total_steps is None else {}
        return {**epochs, self.argument.upper(): self.argument_found}

    @property
    def span(self) -> str:
        """How long the schedule is, in terms of :attr:`constants`."""
        return "EPOCHS epochs" if self.total_steps is None else "TOTAL_STEPS steps"

    @property
    def stretch(self) -> str:
        """The source of the ratio of another run's length to the one it was found with."""
        return (
            f"{self.argument} / {self.argument.upper()}"
            f"  # 1.0 with the {self.argument_found} of the search"
        )


def inert(text: str) -> str:
    """The text on one line, escaped so that it is safe inside a docstring."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return line.replace("\\", "\\\\").replace('"', '\\"')


def render(schedule: Schedule, file: SourceFile) -> str:
    """The text of a Python file with a function ``make_scheduler(optimizer, steps_per_epoch)``.

    The function stretches the schedule if the steps per epoch differ from those it was found with.
    Its second argument is the file's own: ``total_steps`` for a length in steps.
    """
    snippet = schedule.code(len(file.multipliers))
    lines = [
        *opening(file, snippet.imports),
        "",
        *(("", *snippet.definitions, "") if snippet.definitions else ()),
        "",
        *factory(file, BY_EPOCHS if file.total_steps is None else BY_STEPS, snippet.body),
        "",
    ]
    return "\n".join(lines)


def factory(
    file: SourceFile, usage: Sequence[str], body: Sequence[str], *, note: Sequence[str] = ()
) -> list[str]:
    """The definition of ``make_scheduler``, whose docstring shows the ``usage`` and a ``note``."""
    length = "len(loader)" if file.total_steps is None else "TOTAL_STEPS"
    return [
        f"def make_scheduler(optimizer, {file.argument}):",
        f'    """The schedule for a fresh optimizer, over {file.span}.',
        "",
        f"    Found with {file.optimizer}.",
        "",
        f"        scheduler = make_scheduler(optimizer, {length})",
        *(f"        {line}" for line in usage),
        *(f"    {line}".rstrip() for line in note),
        '    """',
        *(f"    {line}" for line in [*preamble(file, body), *body]),
    ]


def opening(file: SourceFile, imports: Sequence[str]) -> list[str]:
    """The first lines of a generated file: how the schedule was found, imports, and lengths."""
    width = max((len(label) for label in file.found), default=0)
    return [
        f'"""{file.title}',
        "",
        *(f"{label:<{width}}  {text}" for label, text in file.found.items()),
        '"""',
        "",
        *imports,
        "",
        *(f"{name} = {value}" for name, value in file.constants.items()),
    ]


def preamble(file: SourceFile, body: Sequence[str]) -> list[str]:
    """The definitions that the ``body`` of a ``make_scheduler`` uses: ``stretch``, ``ratios``."""
    lines = []
    if any("stretch" in line for line in body):
        lines.append(f"stretch = {file.stretch}")
    if len(file.multipliers) > 1:
        lines += [
            'own = optimizer.param_groups[0]["lr"]',
            'ratios = [group["lr"] / own for group in optimizer.param_groups]',
        ]
    if any(each != 1.0 for each in file.multipliers):
        lines += [
            f"found = {list(file.multipliers)}  # times the groups' own ratios",
            "ratios = [ratio * times for ratio, times in zip(ratios, found)]",
        ]
    return lines


def call(name: str, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """The source that returns a call of a torch class, on one line if it fits."""
    given = [f"{key}={value}" for key, value in arguments.items()]
    line = f"return {name}({', '.join(['optimizer', *given])})"
    if len(line) <= 96:
        return (line,)
    return (f"return {name}(", "    optimizer,", *(f"    {each}," for each in given), ")")


def per_group(value: float, groups: int) -> str:
    """The source of the groups' rates, for torch classes that take a value or a list of values."""
    return repr(value) if groups == 1 else f"[{value!r} * ratio for ratio in ratios]"


def assignment(lr: float, groups: int) -> tuple[str, ...]:
    """The source of ``set_rates``: sets the first group's rate and the others' by their ratios."""
    if groups == 1:
        return (f'optimizer.param_groups[0]["lr"] = {lr!r}',)
    return (
        "for group, ratio in zip(optimizer.param_groups, ratios):",
        f'    group["lr"] = {lr!r} * ratio',
    )


@contextmanager
def _importable(own: tuple[str, str, RateFunction | None] | None) -> Iterator[None]:
    """Make an import of the user's module return the function that is already loaded."""
    if own is None:
        yield
        return
    name, attribute, function = own
    stand_in = ModuleType(name)
    setattr(stand_in, attribute, function)
    before = sys.modules.get(name)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def execute(
    source: str,
    *,
    own: tuple[str, str, RateFunction | None] | None = None,
    name: str = "make_scheduler",
) -> Callable[..., Any]:
    """The function ``make_scheduler``, or of another ``name``, of a generated file.

    ``own`` is that of the snippet: the file imports the function that the trace was made with.
    """
    namespace: dict[str, Any] = {"__name__": "schedule"}
    with _importable(own):
        exec(compile(source, "<schedule>", "exec"), namespace)
    found: Callable[..., Any] = namespace[name]
    return found


def check(
    source: str,
    expected: Trace,
    *,
    length: float,
    momentum: Momentum,
    ratios: Sequence[float] = (1.0,),
    own: tuple[str, str, RateFunction | None] | None = None,
) -> None:
    """Execute a file from :func:`render` and step its scheduler along the ``expected`` trace.

    ``length`` is what ``make_scheduler`` takes beside the optimizer: the steps per epoch, or all
    steps. ``own`` is as for :func:`execute`.

    Raises:
        ScheduleError: a rate or a momentum differs by more than 1e-12 of the peak rate
            (proportionally more beyond 10,000 steps, as torch accumulates rounding errors); names
            the step.
    """
    import torch

    make_scheduler = execute(source, own=own)
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1 * r} for r in ratios]
    optimizer: torch.optim.Optimizer
    if momentum == "betas":
        optimizer = torch.optim.Adam(groups)
    else:
        optimizer = torch.optim.SGD(groups, momentum=0.9 if momentum == "momentum" else 0.0)
    scheduler = make_scheduler(optimizer, length)
    horizon = expected.rates.shape[1]
    tolerance = TOLERANCE * float(np.max(expected.rates)) * max(1.0, horizon / GATHERED)
    for step in range(horizon):
        for index, group in enumerate(optimizer.param_groups):
            gap = abs(group["lr"] - expected.rates[index, step])
            if expected.momenta is not None:
                value = group["betas"][0] if momentum == "betas" else group["momentum"]
                gap = max(gap, abs(value - expected.momenta[index, step]))
            if not gap <= tolerance:
                raise ScheduleError(
                    f"the code deviates from the schedule at step {step} by {gap:.3g}"
                )
        optimizer.step()
        scheduler.step()
