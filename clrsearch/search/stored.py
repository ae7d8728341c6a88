"""What is stored of a study, checked before anything is made of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from clrsearch.errors import StudyError
from clrsearch.search.plan import EARLIER, STORED, StudyPlan
from clrsearch.search.rangetest import RangeTest
from clrsearch.tasks import TaskFacts

Stage = Literal["search", "confirm"]


ATTRIBUTE = "clrsearch"
"""The key of what is stored of a study that clrsearch made."""

ROW_ERRORS = (AttributeError, LookupError, TypeError, ValueError)
"""What it raises to read a row that is damaged, or was written by others."""


class Link(BaseModel):
    """The search that a confirmation belongs to."""

    model_config = ConfigDict(frozen=True)

    uuid: UUID
    name: str


class Stored(BaseModel):
    """The attribute of a study that clrsearch made.

    A role that may only work on studies can write it too. ``uuid`` names a folder, so that nothing
    but a UUID will do. ``confirms`` is None for a search, and for the confirmations that earlier
    versions made.
    """

    model_config = ConfigDict(frozen=True)

    uuid: UUID
    stage: Stage = "search"
    confirms: Link | None = None
    created: datetime
    versions: dict[str, str]
    plan: StudyPlan
    facts: TaskFacts
    range_test: RangeTest | None = None

    @field_validator("plan", mode="before")
    @classmethod
    def _of_an_earlier_version(cls, plan: Any) -> Any:
        return {**EARLIER, **plan} if isinstance(plan, dict) else plan


def read_stored(name: str, attribute: Any) -> Stored:
    """The attribute of the study ``name`` as it was read.

    Raises:
        StudyError: it is damaged, or of another version; naming the key.
    """
    try:
        return Stored.model_validate(attribute, context=STORED)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise unreadable(
            name, f"{key}: {first['msg']}" if key else first["msg"], attribute
        ) from error


def unreadable(name: str, why: object, attribute: Any = None) -> StudyError:
    """The refusal of a study, with the version that made it where that can be read."""
    versions = attribute.get("versions") if isinstance(attribute, dict) else None
    version = versions.get("clrsearch") if isinstance(versions, dict) else None
    made = f" (made by clrsearch {version})" if version else ""
    said = f"{type(why).__name__}: {why}" if isinstance(why, LookupError) else why
    return StudyError(f"the study {name} cannot be read: {said}{made}")
