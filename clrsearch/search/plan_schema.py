"""A JSON Schema of study files, by which editors complete and check their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clrsearch.schedules import FAMILIES
from clrsearch.search.plan import AUTO, StudyPlan

DIALECT = "http://json-schema.org/draft-07/schema#"
"""A draft that editors' TOML extensions read."""
LIMITS_OF_PYDANTIC = {"ge": "minimum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""Constraints that pydantic leaves under its own names where a value may be None."""


def study_schema() -> dict[str, Any]:
    """The JSON Schema of a study file: its keys, their types and defaults, and the families.

    What depends on the task, and which keys go together, is left to clrsearch itself.
    """
    made = StudyPlan.model_json_schema()
    keys = made["properties"]
    del keys["horizon"]
    keys["confirm"] = made["$defs"]["ConfirmPlan"] | {"description": keys["confirm"]["description"]}
    family = {"type": "string", "enum": list(FAMILIES)}
    keys["families"]["items"] = family
    keys["baseline"] |= family
    for table in ("bounds", "start"):
        keys[table]["propertyNames"] = {"enum": list(FAMILIES)}
    keys["trials"] = _or(keys["trials"], {"const": AUTO})
    keys["like"] = _or(keys["like"], {"type": "string"})
    return {
        "$schema": DIALECT,
        "title": "A study of clrsearch",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _plain(value) for key, value in keys.items()},
    }


def _or(key: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A key that may be something else as well."""
    about = {name: key.pop(name) for name in ("description", "default")}
    return {"anyOf": [key, other], **about}


def _plain(schema: Any) -> Any:
    """Without what TOML or the draft has not: nulls and ``prefixItems``; and without titles."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _plain(each) for name, each in value.items()}
        elif key == "description":
            found[key] = " ".join(value.replace("``", "`").split())
        elif key == "prefixItems":
            found["items"] = _plain(value)
        elif key != "title" and not (key == "default" and value is None):
            found[str(LIMITS_OF_PYDANTIC.get(key, key))] = _plain(value)
    kinds = [each for each in found.pop("anyOf", ()) if each != {"type": "null"}]
    if {"type": "number"} in kinds:  # integers are numbers
        kinds = [each for each in kinds if each != {"type": "integer"}]
    return found | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})
