"""A study's plan, facts and versions, as stored with it and validated on reading."""

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
"""Key of the attribute of a study created by clrsearch."""

CONFIRMATION = ".confirm"
"""Suffix of a confirmation's name, after that of its search."""

CONDITION = ".vary."
"""Likewise of a confirmation under a changed condition, which follows."""

ROW_ERRORS = (AttributeError, LookupError, TypeError, ValueError)
"""Exceptions raised by reading rows that are damaged or not ours."""


class Link(BaseModel):
    """The search that a confirmation belongs to."""

    model_config = ConfigDict(frozen=True)

    uuid: UUID
    name: str


class StudyRecord(BaseModel):
    """A study as created: everything about it that is not a trial or a slot.

    ``id`` and ``name`` are Optuna's; the rest is an attribute of the study. Roles that may only
    work on studies can write it too, so it is not trusted: ``uuid`` names a folder and must be a
    valid UUID. ``confirms`` is None for searches, and for confirmations created by earlier
    versions. ``condition`` is what a confirmation changed: a key of the plan and its value.
    ``earlier`` is the number of pieces in which what it takes over from earlier studies
    is stored.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    name: str
    uuid: UUID
    stage: Stage = "search"
    confirms: Link | None = None
    condition: str | None = None
    created: datetime
    versions: dict[str, str]
    plan: StudyPlan
    facts: TaskFacts
    range_test: RangeTest | None = None
    earlier: int = 0

    @property
    def search(self) -> str:
        """The name of the search that a confirmation belongs to."""
        return self.confirms.name if self.confirms else self.name.removesuffix(CONFIRMATION)

    @field_validator("plan", mode="before")
    @classmethod
    def _of_an_earlier_version(cls, plan: Any) -> Any:
        return {**EARLIER, **plan} if isinstance(plan, dict) else plan


def read_record(study_id: int, name: str, attribute: Any) -> StudyRecord:
    """Validate the attribute read from the study ``name``.

    Raises:
        StudyError: it is damaged or from another version; names the key.
    """
    if not isinstance(attribute, dict):
        raise unreadable(name, f"its attribute {ATTRIBUTE} is not an object")
    try:
        return StudyRecord.model_validate(
            {**attribute, "id": study_id, "name": name}, context=STORED
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise unreadable(
            name, f"{key}: {first['msg']}" if key else first["msg"], attribute
        ) from error


def unreadable(name: str, why: object, attribute: Any = None) -> StudyError:
    """Error for a study that cannot be read, with the version that created it if known."""
    versions = attribute.get("versions") if isinstance(attribute, dict) else None
    version = versions.get("clrsearch") if isinstance(versions, dict) else None
    made = f" (created by clrsearch {version})" if version else ""
    said = f"{type(why).__name__}: {why}" if isinstance(why, LookupError) else why
    return StudyError(f"the study {name} cannot be read: {said}{made}")
