"""Files to start from: a runnable task or training loop to change, and the tutorial's notebook."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from clrsearch.errors import TaskError
from clrsearch.proposals import quoted

TASK, LOOP, NOTEBOOK = "starting_task.py", "starting_loop.py", "notebook.ipynb"
SERVERS = ("jupyterlab", "notebook")


def new_file(path: Path, *, loop: bool = False) -> str:
    """Write a template of a task, or with ``loop`` of a training loop, to a new file.

    Returns the command that searches with it.

    Raises:
        TaskError: the file already exists, is not a ``.py`` file, or its folder does not exist.
    """
    if path.suffix != ".py":
        raise TaskError(f"{path}: a task is a Python file, so its name must end in .py")
    if not path.name.isprintable() or {'"', "\\"} & set(path.name):  # it goes into a docstring
        raise TaskError(
            f"{path}: choose a name without quotation marks, backslashes or unprintable characters"
        )
    text = (files("clrsearch.tasks") / (LOOP if loop else TASK)).read_text(encoding="utf-8")
    text = text.replace("{file}", quoted(path.name))
    _write_new(path, text)
    return next(line.strip() for line in text.splitlines() if line.strip().startswith("clrsearch"))


def new_notebook(path: Path) -> None:
    """Write the tutorial's notebook to a new file.

    Raises:
        TaskError: the file already exists, or cannot be written.
    """
    _write_new(path, (files("clrsearch.service") / NOTEBOOK).read_text(encoding="utf-8"))


def notebook_server() -> str | None:
    """The module that opens notebooks, for ``python -m``; None if there is none here."""
    return next((each for each in SERVERS if find_spec(each) is not None), None)


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise TaskError(f"{path} already exists and will not be overwritten") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be written: {error.strerror}") from error
