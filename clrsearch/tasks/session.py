"""Tasks passed as objects: the name by which other processes load them, if there is one.

A class or function in a module or script has a name, ``package.module:NAME`` or ``file.py:NAME``.
One defined in a notebook or interpreter exists only in this process; it is called ``__main__:NAME``
and kept here.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clrsearch import task_files
from clrsearch.errors import TaskError

PLACE = "__main__"

_objects: dict[str, Callable[..., Any]] = {}


def importable_name(found: Callable[..., Any]) -> tuple[str, Path] | None:
    """The name of a class or function, and the folder from which it is loaded by that name.

    None if no other process can load it: it is local to a function, or has no source file.
    """
    attribute = found.__qualname__
    module = sys.modules.get(found.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not file.endswith(".py") or not attribute.isidentifier():
        return None
    path = Path(file).resolve()
    spec = getattr(module, "__spec__", None)  # a script has none
    if spec is None or spec.name.startswith(task_files.PREFIX):
        return f"{path.name}:{attribute}", path.parent
    depth = spec.name.count(".") + (path.name == "__init__.py")
    return f"{spec.name}:{attribute}", path.parents[depth]


def keep(found: Callable[..., Any]) -> str:
    """Keep an object in this process; returns the name by which it is loaded here."""
    attribute = found.__name__ if found.__name__.isidentifier() else "task"
    _objects[attribute] = found
    return f"{PLACE}:{attribute}"


def is_kept_here(name: str) -> bool:
    """Whether only the process that defined a task can load it by this name."""
    return name.partition(":")[0] == PLACE


def kept(name: str) -> Callable[..., Any]:
    """The object kept under ``name``.

    Raises:
        TaskError: this process has no such object.
    """
    attribute = name.partition(":")[2]
    if attribute not in _objects:
        raise TaskError(
            f"{attribute} was defined in a notebook or interactive session and exists only there: "
            f"call clrsearch.run({attribute}) there, or move it to a file"
        )
    return _objects[attribute]


def kept_source(name: str) -> str:
    """A hash of the object's source, or of its name if the source is not available."""
    found = kept(name)
    try:
        text = inspect.getsource(found)
    except (OSError, TypeError):
        text = found.__qualname__
    return hashlib.sha256(text.encode()).hexdigest()
