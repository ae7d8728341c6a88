"""Task files as modules that other processes can import as well.

``mine.py`` is loaded as ``clrsearch.task_files.mine``. A process that multiprocessing spawns gets
its parent's ``sys.path`` and imports that name when it unpickles, say, a dataset defined in the
file. Since the name is inside this package, Python imports this module first, whatever else the
process has imported, and this module finds the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

PREFIX = f"{__name__}."
_DOT = "/"  # stands for a dot in a file's name, which would separate a module from its package

__path__: list[str] = []  # makes this module a package; its modules are found by _Finder alone


class _FileSpec(ModuleSpec):
    """Says that a file is in no package: relative imports in it fail, as they do in a script."""

    @property
    def parent(self) -> str:
        return ""


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a task file in a folder of ``sys.path``, for the import system."""
        if not fullname.startswith(PREFIX):
            return None
        file = _find(fullname)
        return None if file is None else _spec(fullname, file)


sys.meta_path.append(_Finder())


def spec_of(file: Path) -> ModuleSpec:
    """The spec of the module for a task file, given by its absolute path.

    Processes that are given this one's ``sys.path`` will find the same file: if they would not, its
    folder is added at the end, where it hides no other module, even if it is on the path already.
    """
    name = PREFIX + file.stem.replace(".", _DOT)
    if _find(name) != file:
        sys.path.append(str(file.parent))
    return _spec(name, file)


def _find(name: str) -> Path | None:
    """The file of a module, from the last folder on ``sys.path`` that has it."""
    file = f"{name.removeprefix(PREFIX).replace(_DOT, '.')}.py"
    folders = (each for each in reversed(sys.path) if isinstance(each, str) and os.path.isabs(each))
    found = (os.path.join(folder, file) for folder in folders)
    return next((Path(path) for path in found if os.path.isfile(path)), None)


def _spec(name: str, file: Path) -> ModuleSpec:
    spec = _FileSpec(name, SourceFileLoader(name, str(file)), origin=str(file))
    spec.has_location = True
    return spec
