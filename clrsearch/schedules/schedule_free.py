"""No schedule: a constant rate for an optimizer that averages its weights.

A. Defazio et al., "The Road Less Scheduled", arXiv:2405.15682; its package is ``schedulefree``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, ModuleType
from typing import ClassVar

from clrsearch.errors import ScheduleError
from clrsearch.schedules.decay import WARMUP, Decay, at_peaks, warmup_of
from clrsearch.schedules.parameters import Parameter, Range, Setting, Space, Value
from clrsearch.schedules.pieces import Piece

TWINS: Mapping[str, str] = MappingProxyType(
    {"SGD": "SGDScheduleFree", "Adam": "AdamWScheduleFree", "AdamW": "AdamWScheduleFree"}
)
"""The class of the package that takes the place of each of torch's optimizers."""
INSTALL = "pip install 'clrsearch[schedule-free]'"
STEP = 10.0
"""Factor on the rates of an SGD with momentum: a momentum of 0.9 makes its steps that much longer
than its rate, and Schedule-Free has none. The package's README advises rates 10 to 50 times as high
for SGD, and 1 to 10 times for AdamW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFree(Decay):
    """share(t) = 1, played to an optimizer of Schedule-Free, which has an average x::

        y = (1 - beta) z + beta x
        z <- z - rate(t) g(y)
        x <- (1 - c) x + c z,  c = w(t) / (w(0) + ... + w(t)),  w(t) = (max of rate until t)^2

    Gradients are taken at y, and x is the model that is validated and kept. g is the gradient or,
    for AdamW, the gradient over the root of its running second moment; beta takes the place of the
    optimizer's momentum or first beta.
    """

    family: ClassVar[str] = "schedule_free"

    beta: float

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        if not 0 < self.beta < 1:
            raise ScheduleError(f"beta must be above 0 and below 1, not {self.beta}")

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, beta and the warm-up.

        The README of the package calls training sensitive to beta: 0.9 works on most problems, and
        very long runs may need 0.95 or 0.98. The rates are higher by :data:`STEP` for SGD with
        momentum.
        """
        rates, factor = setting.rates, _factor(setting)
        return {
            "lr": Parameter(
                domain=replace(rates, low=factor * rates.low, high=factor * rates.high)
            ),
            "beta": Parameter(domain=Range(low=0.9, high=0.98)),
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """A beta of 0.9 and 5 % of warm-up, as in most of the paper, for two peak rates."""
        higher = replace(setting, base_lr=_factor(setting) * setting.base_lr)
        return at_peaks(higher, space, beta=0.9, warmup_share=0.05)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> ScheduleFree:
        """The schedule for the searched parameters; see :meth:`space`."""
        return cls(
            lr=float(params["lr"]),
            warmup=warmup_of(params, setting),
            beta=float(params["beta"]),
        )

    @property
    def averaging(self) -> float:
        """See :func:`clrsearch.schedules.schedule.averaging_of`."""
        return self.beta

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """The peak rate, held."""
        return (Piece(begin=self.warmup, until=float("inf"), start=1.0, end=1.0),)


def schedulefree_package() -> ModuleType:
    """The package ``schedulefree``.

    Raises:
        ScheduleError: it is not installed.
    """
    try:
        import schedulefree
    except ImportError as error:
        raise ScheduleError(f"{ScheduleFree.family} needs a package: {INSTALL}") from error
    found: ModuleType = schedulefree
    return found


def _factor(setting: Setting) -> float:
    return STEP if setting.momentum == "momentum" else 1.0
