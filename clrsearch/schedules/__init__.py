"""Learning-rate schedules: the families, independent of training and of the search."""

from collections.abc import Mapping
from types import MappingProxyType

from clrsearch.schedules.code import (
    SourceFile,
    assignment,
    check,
    execute,
    factory,
    opening,
    render,
)
from clrsearch.schedules.constant import Constant
from clrsearch.schedules.cosine import Cosine, CosineRestarts
from clrsearch.schedules.cyclic import (
    SCALE_FUNCTIONS,
    SHORT_CYCLES,
    SHORTEST,
    Cyclic,
    is_short,
)
from clrsearch.schedules.fields import LARGEST_RATE
from clrsearch.schedules.linear import Linear, Polynomial
from clrsearch.schedules.manual import Manual
from clrsearch.schedules.onecycle import OneCycle
from clrsearch.schedules.optimizer_code import check_optimizer, render_optimizer
from clrsearch.schedules.parameters import (
    Choice,
    HandWritten,
    Momentum,
    Parameter,
    Range,
    RateFunction,
    Setting,
    Space,
    Value,
    settings_near,
)
from clrsearch.schedules.pieces import Curve, Curves, Cycles, Piece, Scale
from clrsearch.schedules.schedule import (
    Schedule,
    Snippet,
    Trace,
    averaging_of,
    momentum_of,
    relative_rates,
    trace,
)
from clrsearch.schedules.schedule_free import TWINS, ScheduleFree, schedulefree_package
from clrsearch.schedules.stable import WarmupStableDecay
from clrsearch.schedules.step import Exponential, MultiStep, Step

FAMILIES: Mapping[str, type[Schedule]] = MappingProxyType(
    {
        family.family: family
        for family in (
            Constant,
            Cyclic,
            OneCycle,
            Cosine,
            CosineRestarts,
            Linear,
            Polynomial,
            Step,
            MultiStep,
            Exponential,
            WarmupStableDecay,
            ScheduleFree,
            Manual,
        )
    }
)
"""All schedule families by name; the only registry."""

__all__ = [
    "FAMILIES",
    "LARGEST_RATE",
    "SCALE_FUNCTIONS",
    "SHORTEST",
    "SHORT_CYCLES",
    "TWINS",
    "Choice",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Curve",
    "Curves",
    "Cycles",
    "Cyclic",
    "Exponential",
    "HandWritten",
    "Linear",
    "Manual",
    "Momentum",
    "MultiStep",
    "OneCycle",
    "Parameter",
    "Piece",
    "Polynomial",
    "Range",
    "RateFunction",
    "Scale",
    "Schedule",
    "ScheduleFree",
    "Setting",
    "Snippet",
    "SourceFile",
    "Space",
    "Step",
    "Trace",
    "Value",
    "WarmupStableDecay",
    "assignment",
    "averaging_of",
    "check",
    "check_optimizer",
    "execute",
    "factory",
    "is_short",
    "momentum_of",
    "opening",
    "relative_rates",
    "render",
    "render_optimizer",
    "schedulefree_package",
    "settings_near",
    "trace",
]
