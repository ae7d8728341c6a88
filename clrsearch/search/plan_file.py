"""A study's plan, read from TOML and options; what is wrong with either, in one line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from clrsearch.errors import PlanError
from clrsearch.search.plan import (
    LIMITS,
    STORED,
    ConfirmPlan,
    StudyPlan,
    named_options,
    nearest,
    require_plan,
)
from clrsearch.tasks import BUILT_IN

LARGEST_FILE = 1_000_000  # bytes

_WANTED = {
    "bounds": "not a number, string, boolean or list of these",
    "options": "not a number, string or boolean",
    "minutes": "not a finite number above 0",
    "gpu_hours": "not a finite number above 0",
    "groups": "neither a number nor a range [LOW, HIGH]",
    "start": "not a number",
    "weight_decay": "neither a number, 0 or more, nor a factor such as 0.3x",
    "manual": 'neither a list of [EPOCHS, RATE] nor "file.py:NAME"',
}
"""Error text for values of union types, in place of one error per alternative."""
_DEPTH = {"bounds": 3, "options": 2, "groups": 2, "start": 2}  # length of a key, if not 1
_TYPES = {
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
}
_TABLES = ("mapping_type", "dict_type", "model_type")
"""Pydantic error types reported as a missing TOML table."""


def load_plan(path: Path | None, changes: Mapping[str, Any] | None = None) -> StudyPlan:
    """Load the plan of a study file, or the default plan, and apply ``changes``.

    ``changes`` maps keys to values as in the file; a dotted key refers to a key inside a table.

    Raises:
        PlanError: no such file, invalid TOML, an unknown key (the message suggests the nearest one)
            or a bad value.
    """
    content = {} if path is None else _read(path)
    if isinstance(content.get("options"), dict):
        content["options"] = named_options(content["options"])
    for key, value in (changes or {}).items():
        _lay_over(content, key, value)
    if "horizon" in content:
        raise PlanError("horizon: leave this out, and use clrsearch horizon --epochs 5,10,20")
    plan = _checked(content, path)
    require_plan(plan)
    return plan


def limited(plan: StudyPlan, trials: int | str | None = None, **budget: float | None) -> StudyPlan:
    """A plan with other limits; without any, it leaves those of its study as they are.

    Raises:
        PlanError: a limit is out of range.
    """
    given = {key: each for key, each in {"trials": trials, **budget}.items() if each is not None}
    content = plan.model_dump(exclude=set(LIMITS), exclude_unset=True) | given
    return _checked(content, None, context=STORED)


def refuse_task(text: str) -> None:
    """Reject a task given in place of a study file.

    Raises:
        PlanError: with the option that names a task.
    """
    place, colon, attribute = text.partition(":")
    if text in BUILT_IN or (colon and place and attribute.isidentifier()):
        raise PlanError(f"{text} is a task, not a study file: use --task {text}")
    if text.endswith(".py"):
        raise PlanError(f"{text} is not a study file; for a task in it, use --task {text}:NAME")


def _checked(
    content: Mapping[str, Any], path: Path | None, *, context: str | None = None
) -> StudyPlan:
    try:
        return StudyPlan.model_validate(content, context=context)
    except ValidationError as error:
        raise PlanError(_explain(error.errors()[0], path)) from error


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".py" or not path.exists():
        refuse_task(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise PlanError(f"{path} is not a study file: it is larger than {LARGEST_FILE} bytes")
        return read_toml(content.decode("utf-8-sig"))  # Windows editors add a byte order mark
    except FileNotFoundError:
        raise PlanError(f"no such study file: {path}{_toml_files_near(path)}") from None
    except OSError as error:
        raise PlanError(f"the study file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PlanError(f"{path} is not UTF-8 text: see line {line}") from error
    except ValueError as error:
        raise PlanError(f"{path} is not valid TOML: {error}") from error


def read_toml(text: str) -> dict[str, Any]:
    """Parse TOML text.

    Raises:
        ValueError: invalid TOML, nested too deeply, or a number with thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _toml_files_near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [file.name for file in path.parent.glob("*.toml")]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _lay_over(content: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = _parts(key)
    if tables[:1] == ["options"]:  # optimizer and optimizer.lr may both be options
        tables, last = tables[:1], ".".join([*tables[1:], last])
    for table in tables:
        inner = content.setdefault(table, {})
        if not isinstance(inner, dict):
            raise PlanError(f"{key}: {table} is not a table")
        content = inner
    content[last] = value


def _parts(key: str) -> list[str]:
    """Split a dotted key, whose parts may be quoted as in TOML."""
    try:
        found: Any = read_toml(f"{key} = 0")
    except ValueError as error:
        raise PlanError(
            f"{key!r} is not a valid key; keys look like bounds.cyclic.max_lr"
        ) from error
    parts = []
    while isinstance(found, dict):
        ((part, found),) = found.items()
        parts.append(part)
    return parts


def _explain(error: ErrorDetails, path: Path | None) -> str:
    where = f"{path}: " if path else ""
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
    if error["type"] == "extra_forbidden":
        inside = {"confirm": [f"confirm.{name}" for name in ConfirmPlan.model_fields]}
        known = inside.get(key.partition(".")[0], StudyPlan.model_fields)
        return f"{where}unknown key {key}{nearest(key, known)}"
    if error["type"] in _TABLES:
        return f"{where}{key}: must be a table, not {error['input']!r}"
    top = str(error["loc"][0])
    if top in _WANTED:
        value = ".".join(map(str, error["loc"][: _DEPTH.get(top, 1)]))
        return f"{where}{value}: {error['input']!r} is {_WANTED[top]}"
    if error["type"] in _TYPES:
        return f"{where}{key}: {_TYPES[error['type']]}, not {error['input']!r}"
    return f"{where}{key}: {error['msg'][0].lower()}{error['msg'][1:]}, not {error['input']!r}"
