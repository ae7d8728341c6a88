"""Loads a task or a function by name: ``package.module:NAME`` or ``file.py:NAME``."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from importlib.util import module_from_spec
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from clrsearch import task_files
from clrsearch.errors import ClrsearchError, TaskError, TaskRaised
from clrsearch.tasks.attributes import require_attributes
from clrsearch.tasks.description import describe
from clrsearch.tasks.finding import find, make_importable, of_rate, of_task, source
from clrsearch.tasks.session import is_kept_here, kept, kept_source
from clrsearch.tasks.task import Loop, Task
from clrsearch.tasks.weight_decay import WeightDecay

if TYPE_CHECKING:
    from collections.abc import Iterator

USAGE_ERROR = 2
"""The exit code of argparse, and of most other parsers, for an invalid command line."""

_FUNCTIONS = (FunctionType, BuiltinFunctionType, type)
_importing: list[str] = []
_contents: dict[ModuleType, tuple[Path, bytes, tuple[str, ...]]] = {}
"""The files executed so far, each with its content and its command line at that time."""


class LoadedTask(NamedTuple):
    """A task or custom training loop, and a hash of the source file that defines it."""

    task: Task | Loop
    source: str


class LoadedRate(NamedTuple):
    """A function ``rate(step, steps_per_epoch)`` and a hash of the file that defines it."""

    function: Callable[[int, float], Any]
    source: str


def load_task(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    arguments: tuple[str, ...] = (),
    folder: Path,
    data_dir: Path | None = None,
    weight_decay: float | str | None = None,
) -> LoadedTask:
    """Load the task called ``name``; a ``file.py`` is looked up in ``folder``.

    Modules in ``folder`` can be imported but hide no installed module: it goes last on
    ``sys.path``.

    ``arguments`` is the command line that the task sees when it is imported, constructed or, if it
    is a loop, run. ``data_dir`` is the folder for data that it reads from disk. ``weight_decay``
    replaces that of its optimizer, or is a factor on it, such as ``0.3x``.

    Raises:
        TaskError: there is no such file, module or name in it, it is not a task, an option is
            unknown, or a loop is to have another weight decay.
        TaskRaised: the task's code raised while it was imported or constructed.
    """
    place, _ = of_task(name)
    found, made_of = _found(name, folder, arguments)
    if isinstance(found, FunctionType):
        _require_no_hydra_main(name, found)
        _require_one_argument(name, found)
        if weight_decay is not None:
            raise TaskError(
                f"weight_decay: {name} is a custom training loop, which makes its own optimizer: "
                "let it read run.options, and set options.weight_decay instead"
            )
        loop = Loop(
            name=name,
            function=found,
            options=options or {},
            arguments=arguments,
            data_dir=data_dir or Path(),
        )
        return LoadedTask(loop, made_of)
    if not _is_task(found):
        raise TaskError(
            f"{name} is {describe(found)}, neither a class derived from clrsearch.Task nor a "
            "function train(run)"
        )
    require_attributes(name, found)
    with as_script(place, arguments), task_code(f"constructing {name}"):
        task = found(options)
    if data_dir is not None:
        task.data_dir = data_dir
    if weight_decay is not None:
        task.asked_weight_decay = WeightDecay.read(weight_decay)
    return LoadedTask(task, made_of)


def _found(name: str, folder: Path, arguments: tuple[str, ...]) -> tuple[Any, str]:
    """The object that a task's name refers to, and a hash of its source."""
    if is_kept_here(name):
        return kept(name), kept_source(name)
    place, attribute = of_task(name)
    module = _load(folder, place, arguments)
    if not hasattr(module, attribute):
        defined = [key for key, value in vars(module).items() if _is_task(value)]
        listed = f"; its tasks: {', '.join(defined)}" if defined else " and defines no task"
        raise TaskError(f"{place} has no {attribute}{listed}")
    found = getattr(module, attribute)
    if isinstance(found, FunctionType):
        _require_own(name, module, found)
    return found, _source(module)


def load_rate(name: str, *, arguments: tuple[str, ...] = (), folder: Path) -> LoadedRate:
    """Load the function of the step and the steps per epoch that is called ``name``.

    ``arguments`` and ``folder`` are as for :func:`load_task`. Exceptions that the function raises
    when called become a :class:`TaskRaised` that names the step.

    Raises:
        TaskError: there is no such file, module or name in it, or it cannot be called.
        TaskRaised: the file raised while it was imported.
    """
    place, attribute = of_rate(name)
    module = _load(folder, place, arguments)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise TaskError(f"{place} has no function {attribute}")
    _require_own(name, module, found)

    def rate(step: int, steps_per_epoch: float) -> Any:
        with task_code(f"calling {name} at step {step}"):
            return found(step, steps_per_epoch)

    return LoadedRate(rate, _source(module))


@contextmanager
def task_code(doing: str) -> Iterator[None]:
    """Wraps a call into a task's own code: its exceptions become :class:`TaskRaised`.

    ``doing`` completes the sentence "KeyError while ...: 'x'". A SystemExit is converted as well;
    one from argparse, which has printed what is missing, becomes a TaskError.
    """
    try:
        yield
    except ClrsearchError:
        raise
    except SystemExit as error:
        if error.code != USAGE_ERROR:
            raise TaskRaised(f"SystemExit while {doing}: {error}", _own_traceback(error)) from error
        raise TaskError(
            f"a command-line argument was missing or wrong while {doing}: "
            "set the script's command line with --set 'args=\"--name value\"'"
        ) from error
    except Exception as error:
        message = f"{type(error).__name__} while {doing}: {error}"
        raise TaskRaised(message, _own_traceback(error)) from error


@contextmanager
def as_script(place: str, arguments: tuple[str, ...]) -> Iterator[None]:
    """Give the code in the block a script's command line, which many scripts read."""
    before = sys.argv
    sys.argv = [place, *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _own_traceback(error: BaseException) -> str:
    """The traceback of ``error`` from the first frame outside this package, or an empty string."""
    package = str(Path(__file__).parent.parent)
    frame = error.__traceback__
    while frame is not None:
        inside = frame.tb_frame.f_code.co_filename
        if not inside.startswith((package, "<frozen importlib")):
            break
        frame = frame.tb_next
    else:
        return ""
    return "".join(traceback.format_exception(type(error), error, frame))


def _load(folder: Path, place: str, arguments: tuple[str, ...]) -> ModuleType:
    if place.endswith(".py"):
        return _load_file(folder, place, arguments)
    return _load_module(folder, place, arguments)


def _source(module: ModuleType) -> str:
    assert module.__file__ is not None
    return source(Path(module.__file__))


def _load_file(folder: Path, place: str, arguments: tuple[str, ...]) -> ModuleType:
    path = find(folder, place)
    make_importable(path.parent)
    spec = task_files.spec_of(path)
    content = path.read_bytes()
    there = sys.modules.get(spec.name)
    if there is not None and _contents.get(there) == (path, content, arguments):
        return there  # a task and a rate function may share a file; execute it once
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    with _imports(place, arguments), task_code(f"importing {path.name}"):
        assert spec.loader is not None
        spec.loader.exec_module(module)
    _contents[module] = path, content, arguments
    return module


def _load_module(folder: Path, name: str, arguments: tuple[str, ...]) -> ModuleType:
    find(folder, name)
    with _imports(name, arguments), task_code(f"importing {name}"):
        return importlib.import_module(name)


@contextmanager
def _imports(place: str, arguments: tuple[str, ...]) -> Iterator[None]:
    """Marks that a task's file is being imported, and sets its command line."""
    _importing.append(place)
    try:
        with as_script(place, arguments):
            yield
    finally:
        _importing.pop()


def refuse_while_importing(call: str) -> None:
    """Reject a call made while a task's file is imported: every worker would repeat it.

    Raises:
        TaskError: saying where to move the call.
    """
    if _importing:
        raise TaskError(
            f"{_importing[-1]} calls {call} when it is imported, and each worker imports it: move "
            'the call under  if __name__ == "__main__":'
        )


def _require_own(name: str, module: ModuleType, found: object) -> None:
    """Reject a function defined in another module: the hash of this one would not cover it."""
    if isinstance(found, _FUNCTIONS) and found.__module__ != module.__name__:
        raise TaskError(f"{name} is defined in {found.__module__}: name it by that module")


def _require_no_hydra_main(name: str, function: FunctionType) -> None:
    """Reject a function that Hydra would pass a config where it is given the run."""
    if function.__globals__["__name__"] == "hydra.main":
        raise TaskError(
            f"{name} is decorated with @hydra.main, which calls it with a config: write a function "
            "train(run) that gets its config from hydra.compose(overrides=...), with run.options "
            "as overrides"
        )


def _require_one_argument(name: str, function: FunctionType) -> None:
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise TaskError(
            f"{name}{inspect.signature(function)} must accept the run as its only argument: {error}"
        ) from error


def _is_task(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value is not Task
