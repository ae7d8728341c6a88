"""Exports a schedule as code for the library it will be used with."""

from collections.abc import Mapping
from types import MappingProxyType

from clrsearch.errors import PlanError
from clrsearch.exports import keras, lightning, optax, table, timm, torch, transformers
from clrsearch.exports.found import Found, Writer

FORMATS: Mapping[str, Writer] = MappingProxyType(
    {
        "torch": torch.write,
        "lightning": lightning.write,
        "transformers": transformers.write,
        "keras": keras.write,
        "optax": optax.write,
        "timm": timm.write,
        "table": table.write,
    }
)
"""All formats by name; the only registry."""


def write(format: str, found: Found) -> str:
    """A schedule as text, in one of the :data:`FORMATS`.

    Raises:
        PlanError: there is no such format, or it cannot express the schedule.
        ScheduleError: the generated code does not reproduce the schedule.
    """
    if format not in FORMATS:
        raise PlanError(f"unknown format {format!r}: it must be one of {', '.join(FORMATS)}")
    return FORMATS[format](found)


__all__ = ["FORMATS", "Found", "Writer", "write"]
