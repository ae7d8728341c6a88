"""Groups of options: declared once, as a dataclass, and taken whole by the commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer from one with parameters that are groups of options.

    A parameter whose annotation is a dataclass stands for the options that the dataclass's fields
    are; the command is called with an instance of it.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {
        each.name: each.annotation for each in parameters if is_dataclass(each.annotation)
    }
    options: list[inspect.Parameter] = []
    for each in parameters:
        options += _options(groups[each.name]) if each.name in groups else [each]

    def ungrouped(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([each.replace(kind=keyword) for each in options])
    vars(ungrouped)["__signature__"] = signature
    ungrouped.__annotations__ = {each.name: each.annotation for each in options}
    ungrouped.__name__, ungrouped.__doc__ = command.__name__, command.__doc__
    return ungrouped


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(group)
    ]
