"""What a learning rate may do over time: families of schedules, without training or search."""

from collections.abc import Mapping
from types import MappingProxyType

from clrsearch.schedules.code import SourceFile, check, render
from clrsearch.schedules.constant import Constant
from clrsearch.schedules.cyclic import SCALE_FUNCTIONS, Cyclic
from clrsearch.schedules.schedule import (
    Choice,
    Momentum,
    Parameter,
    Range,
    Schedule,
    Setting,
    Snippet,
    Space,
    Trace,
    Value,
    momentum_of,
    relative_rates,
    trace,
)

FAMILIES: Mapping[str, type[Schedule]] = MappingProxyType(
    {family.family: family for family in (Constant, Cyclic)}
)
"""Every family of schedules by name; the only registry."""

__all__ = [
    "FAMILIES",
    "SCALE_FUNCTIONS",
    "Choice",
    "Constant",
    "Cyclic",
    "Momentum",
    "Parameter",
    "Range",
    "Schedule",
    "Setting",
    "Snippet",
    "SourceFile",
    "Space",
    "Trace",
    "Value",
    "check",
    "momentum_of",
    "relative_rates",
    "render",
    "trace",
]
