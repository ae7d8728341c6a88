"""Exports a schedule as code for the library it will be used with."""

from collections.abc import Mapping
from types import MappingProxyType

from clrsearch.errors import PlanError
from clrsearch.exports import (
    to_keras,
    to_lightning,
    to_optax,
    to_table,
    to_timm,
    to_torch,
    to_transformers,
)
from clrsearch.exports.found import Found, Writer
from clrsearch.schedules import ScheduleFree

FORMATS: Mapping[str, Writer] = MappingProxyType(
    {
        "torch": to_torch.write,
        "lightning": to_lightning.write,
        "transformers": to_transformers.write,
        "keras": to_keras.write,
        "optax": to_optax.write,
        "timm": to_timm.write,
        "table": to_table.write,
    }
)
"""All formats by name; the only registry."""
WITH_OPTIMIZERS = ("torch", "lightning", "transformers", "optax")
"""Those of libraries that have the optimizers of Schedule-Free."""


def write(format: str, found: Found) -> str:
    """A schedule as text, in one of the :data:`FORMATS`.

    Raises:
        PlanError: there is no such format, or it cannot express the schedule.
        ScheduleError: the generated code does not reproduce the schedule.
    """
    if format not in FORMATS:
        raise PlanError(f"unknown format {format!r}: it must be one of {', '.join(FORMATS)}")
    if isinstance(found.schedule, ScheduleFree) and format not in WITH_OPTIMIZERS:
        raise found.cannot(format, "it is an optimizer, not a rate over time")
    return FORMATS[format](found)


__all__ = ["FORMATS", "Found", "Writer", "write"]
