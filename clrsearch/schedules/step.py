"""Rates that drop by a factor: at regular intervals, at milestones, or slightly at every step.

K. He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385 (divides by 10); S.
Zagoruyko and N. Komodakis, "Wide Residual Networks", arXiv:1605.07146 (by 5); X. Li, Z. Zhuang and
F. Orabona, "A Second Look at Exponential and Cosine Step Sizes", arXiv:2002.05273.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clrsearch.errors import ScheduleError
from clrsearch.schedules.decay import WARMUP, Decay, at_peaks, warmup_of
from clrsearch.schedules.fields import require_share, require_steps
from clrsearch.schedules.parameters import Parameter, Range, Setting, Space, Value, settings_near
from clrsearch.schedules.pieces import Geometric, Piece, stairs

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR, StepLR

MOST_DROPS, MOST_MILESTONES = 5, 3
ORDINALS = ("first", "second", "third")
GAMMA = Parameter(domain=Range(low=0.05, high=0.7, log=True))
"""The factor of a drop: 1/10, 1/5 and 1/2 are in use, and the range extends somewhat beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Decay):
    """share(t) = gamma^floor((t - warmup) / step_size); torch's StepLR.

    ``step_size`` is a whole number of optimizer steps.
    """

    family: ClassVar[str] = "step"

    step_size: int
    gamma: float

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_steps("step_size", self.step_size, whole=True)
        require_share("gamma", self.gamma)

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, the number of drops, their factor and the warm-up.

        The 1 to 5 drops divide the horizon after the warm-up into equal parts of about an epoch or
        more (PyTorch's ImageNet example has 2 drops: every 30 of 90 epochs).
        """
        return {
            "lr": Parameter(domain=setting.rates),
            "drops": Parameter(domain=_drops(setting, MOST_DROPS)),
            "gamma": GAMMA,
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """Two divisions by 10, from the task's own rate and from three times that."""
        return at_peaks(setting, space, drops=2, gamma=0.1, warmup_share=0.0)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Step:
        """The schedule for the searched parameters; see :meth:`space`.

        The parts are rounded up to whole steps: rounding down would add another drop in the last
        steps.
        """
        warmup = warmup_of(params, setting)
        parts = int(params["drops"]) + 1
        return cls(
            lr=float(params["lr"]),
            warmup=warmup,
            step_size=-(-(setting.horizon - warmup) // parts),
            gamma=float(params["gamma"]),
        )

    @property
    def decay_curve(self) -> Geometric:
        """A drop every ``step_size`` steps."""
        return Geometric(begin=self.warmup, gamma=self.gamma, every=self.step_size)

    def native(self, optimizer: Optimizer) -> StepLR:
        """torch's StepLR."""
        from torch.optim.lr_scheduler import StepLR

        return StepLR(optimizer, step_size=self.step_size, gamma=self.gamma)

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]]:
        """A call of StepLR."""
        size = f"math.ceil({self.step_size!r} * stretch)"
        return "StepLR", {"step_size": size, "gamma": repr(self.gamma)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStep(Decay):
    """share(t) = gamma^n with n the number of ``milestones`` <= t; torch's MultiStepLR.

    ``milestones`` are increasing, whole optimizer steps from the beginning, including the warm-up.
    """

    family: ClassVar[str] = "multistep"

    milestones: tuple[int, ...]
    gamma: float

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        if not self.milestones:
            raise ScheduleError("milestones must contain at least one step")
        for milestone in self.milestones:
            require_steps("milestones", milestone, whole=True)
        for earlier, later in itertools.pairwise(self.milestones):
            if not earlier < later:
                raise ScheduleError(f"milestones must increase, but {later} follows {earlier}")
        if self.milestones[0] <= self.warmup:
            raise ScheduleError(
                f"milestones must be after the warm-up {self.warmup}, not at {self.milestones[0]}"
            )
        require_share("gamma", self.gamma)

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, 1 to 3 drops, their factor, their positions, and the warm-up.

        The first milestone is searched as a share of the horizon left after the warm-up, each
        further one as a share of what is left after the previous one, so that every point is valid.
        Shares of 0.3 to 0.5 are in use (He et al.: 0.5, 0.5 on CIFAR-10; Zagoruyko and Komodakis:
        0.3, 3/7, 0.5), and 0.2 to 0.8 is searched.
        """
        drops = _drops(setting, MOST_MILESTONES)
        places = {}
        for index in range(int(drops.high)):
            more = tuple(range(index + 1, int(drops.high) + 1))
            places[f"{ORDINALS[index]}_milestone"] = Parameter(
                domain=Range(low=0.2, high=0.8), when=("drops", *more) if index else None
            )
        return {
            "lr": Parameter(domain=setting.rates),
            "drops": Parameter(domain=drops),
            "gamma": GAMMA,
            **places,
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """The task's own rate, divided by 10 at 1/2 and 3/4, or by 5 at 0.3, 0.6 and 0.8."""
        lr = {"lr": setting.base_lr, "warmup_share": 0.0}
        places = {name: name + "_milestone" for name in ORDINALS}
        halves = {name: 0.5 for name in places.values()}
        return settings_near(
            space,
            {**lr, "drops": 2, "gamma": 0.1, **halves},
            {
                **lr,
                "drops": 3,
                "gamma": 0.2,
                places["first"]: 0.3,
                places["second"]: 3 / 7,
                places["third"]: 0.5,
            },
        )

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> MultiStep:
        """The schedule for the searched parameters; see :meth:`space`."""
        warmup = warmup_of(params, setting)
        milestones: list[int] = []
        place = float(warmup)
        for name in ORDINALS[: int(params["drops"])]:
            place += float(params[f"{name}_milestone"]) * (setting.horizon - place)
            milestones.append(max(round(place), (milestones or [warmup])[-1] + 1))
        return cls(
            lr=float(params["lr"]),
            warmup=warmup,
            milestones=tuple(milestones),
            gamma=float(params["gamma"]),
        )

    @property
    def decay_curve(self) -> tuple[Piece, ...]:
        """A constant piece between consecutive milestones."""
        return stairs((self.warmup, *self.milestones), self.gamma)

    def native(self, optimizer: Optimizer) -> MultiStepLR:
        """torch's MultiStepLR."""
        from torch.optim.lr_scheduler import MultiStepLR

        return MultiStepLR(optimizer, milestones=self.milestones, gamma=self.gamma)

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]]:
        """A call of MultiStepLR."""
        places = f"[math.ceil(step * stretch) for step in {self.milestones!r}]"
        return "MultiStepLR", {"milestones": places, "gamma": repr(self.gamma)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(Decay):
    """share(t) = gamma^(t - warmup); torch's ExponentialLR."""

    family: ClassVar[str] = "exponential"

    gamma: float

    def __post_init__(self) -> None:
        Decay.__post_init__(self)
        require_share("gamma", self.gamma)

    @classmethod
    def space(cls, setting: Setting) -> Space:
        """The peak rate, the share of it left at the horizon, and the warm-up.

        gamma is searched as that share, so that the range means the same at every horizon T: 1/T
        (Li et al.) is 1e-4 for ten thousand steps, 0.01 is EfficientNet's (arXiv:1905.11946).
        """
        return {
            "lr": Parameter(domain=setting.rates),
            "rate_left": Parameter(domain=Range(low=1e-4, high=0.5, log=True)),
            "warmup_share": WARMUP,
        }

    @classmethod
    def seed_points(cls, setting: Setting, space: Space) -> Sequence[Mapping[str, Value]]:
        """Decay to a hundredth, from the task's own rate and from three times that."""
        return at_peaks(setting, space, rate_left=0.01, warmup_share=0.05)

    @classmethod
    def build(cls, params: Mapping[str, Value], setting: Setting) -> Exponential:
        """The schedule for the searched parameters; see :meth:`space`."""
        warmup = warmup_of(params, setting)
        gamma = float(params["rate_left"]) ** (1 / (setting.horizon - warmup))
        return cls(lr=float(params["lr"]), warmup=warmup, gamma=gamma)

    @property
    def decay_curve(self) -> Geometric:
        """1 at the end of the warm-up, gamma one step later."""
        return Geometric(begin=self.warmup, gamma=self.gamma)

    def native(self, optimizer: Optimizer) -> ExponentialLR:
        """torch's ExponentialLR."""
        from torch.optim.lr_scheduler import ExponentialLR

        return ExponentialLR(optimizer, gamma=self.gamma)

    def native_source(self, groups: int) -> tuple[str, Mapping[str, str]]:
        """A call of ExponentialLR."""
        return "ExponentialLR", {"gamma": f"{self.gamma!r} ** (1 / stretch)"}


def _drops(setting: Setting, most: int) -> Range:
    """The range for the number of drops, which fall between epochs: at most ``most``."""
    if setting.epochs < 2:
        one = "an epoch" if setting.unit == "epoch" else "a validation"
        raise ScheduleError(
            f"a drop needs {one} before and after it, so at least 2 {setting.unit}s; "
            f"there is {setting.epochs}"
        )
    return Range(low=1, high=min(most, setting.epochs - 1), integer=True)
