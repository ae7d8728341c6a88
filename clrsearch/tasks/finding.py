"""Finds the source file of a task or function by name, without executing any of it."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from clrsearch.errors import TaskError
from clrsearch.tasks.session import is_kept_here, kept_source

BUILT_IN: Mapping[str, str] = {
    "denoise": "clrsearch.tasks.denoise:Denoise",
    "digits": "clrsearch.tasks.digits:Digits",
    "cifar10": "clrsearch.tasks.images:Cifar10",
    "cifar100": "clrsearch.tasks.images:Cifar100",
    "mnist": "clrsearch.tasks.images:Mnist",
    "fashion-mnist": "clrsearch.tasks.images:FashionMnist",
    "image-folder": "clrsearch.tasks.images:ImageFolder",
}
"""The built-in tasks by their short names."""


def task_source(name: str, *, folder: Path) -> str:
    """A hash of the source file that :func:`load_task` would load, without executing it.

    Raises:
        TaskError: there is no such file or module.
    """
    if is_kept_here(name):
        return kept_source(name)
    return source(find(folder, of_task(name)[0]))


def rate_source(name: str, *, folder: Path) -> str:
    """A hash of the source file that :func:`load_rate` would load; see :func:`task_source`."""
    return source(find(folder, of_rate(name)[0]))


def source(path: Path) -> str:
    """A hash of a source file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_task(name: str) -> tuple[str, str]:
    """The file or module of a task, and the name within it."""
    place, _, attribute = BUILT_IN.get(name, name).partition(":")
    if not place or not attribute:
        raise TaskError(_what_is_meant(name))
    return place, attribute


def of_rate(name: str) -> tuple[str, str]:
    """The file or module of a rate function, and the name within it."""
    place, _, attribute = name.partition(":")
    if not attribute:
        raise TaskError(f"{name}: name a function as package.module:NAME or file.py:NAME")
    if place.endswith(".py") and not Path(place).stem.isidentifier():
        raise TaskError(
            f"{name}: the schedule's code will import this function, so the file's name may "
            "contain only letters, digits and _"
        )
    return place, attribute


def find(folder: Path, place: str) -> Path:
    """The source file of a module, or a file in the folder.

    Raises:
        TaskError: there is none, or it is not the user's own.
    """
    return _find_file(folder, place) if place.endswith(".py") else _find_module(folder, place)


def make_importable(folder: Path) -> None:
    """Make the modules in a folder importable, unless their names are taken."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()  # they miss files created since


def _find_file(folder: Path, place: str) -> Path:
    if Path(place).is_absolute() or ".." in Path(place).parts:
        raise TaskError(
            f"{place}: give the path relative to the task folder and without .., so that workers "
            "on other machines find their copy"
        )
    path = (folder / place).resolve()
    if not path.is_file():
        raise TaskError(f"no such file: {path} (set its folder with --task-dir)")
    return path


def _find_module(folder: Path, name: str) -> Path:
    """The source file of a module, found without importing it or its parent packages."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise TaskError(
            f"{name} is a module of Python's standard library, which has no tasks or rates"
        )
    make_importable(folder)
    spec: ModuleSpec | None = None
    path: list[str] | None = None  # the enclosing package's search path; None at the top level
    for part in name.split("."):
        # inside a package, search for the last part: a full name would import the parents
        finders = sys.meta_path if path is None else [PathFinder]
        found = (finder.find_spec(part, path) for finder in finders)
        spec = next((each for each in found if each is not None), None)
        if spec is None:
            break
        path = list(spec.submodule_search_locations or ())
    if spec is None:
        raise TaskError(f"no module {name} can be imported; name a file as file.py:NAME")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise TaskError(f"the module {name} has no source file to check for changes")
    return Path(spec.origin)


def _what_is_meant(name: str) -> str:
    file = name.removesuffix(":")
    if file.endswith(".py"):
        return f"task {name}: name a class or function in the file: {file}:NAME"
    near = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"no built-in task {name or repr(name)} (choose from {', '.join(BUILT_IN)}){hint} "
        "Name your own as package.module:NAME or file.py:NAME"
    ).replace(") Name", "). Name")
