"""The command that teaches: a first study in the terminal, or as a notebook."""

from __future__ import annotations

import os
import shlex
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from clrsearch import proposals

if TYPE_CHECKING:
    from clrsearch.service import Step

NOTEBOOK = Path("clrsearch-tutorial.ipynb")
_BROWSERS = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
"""Variables of which Linux needs one to show a page outside the terminal."""


def tutorial(
    notebook: Annotated[
        bool,
        typer.Option("--notebook", help="Write it as a notebook, and open that in Jupyter."),
    ] = False,
) -> None:
    """Learn clrsearch in five minutes.

    Six steps from a first search to your own model, each with the command that it runs. It needs no
    GPU and downloads nothing. All files go into the folder clrsearch-tutorial, and your own studies
    are left alone. If you leave, the same command goes on from there.

    Without a terminal, as in CI, the steps run without waiting for Enter.
    """
    if notebook:
        _write_notebook()
    else:
        _walk()


def _write_notebook() -> None:
    from clrsearch import service
    from clrsearch.reports import say

    service.new_notebook(NOTEBOOK)
    say(f"wrote {NOTEBOOK}")
    server = service.notebook_server()
    if server is None:
        say(f"To open it: pip install jupyterlab pandas && jupyter lab {NOTEBOOK}")
    elif _has_terminal():
        service.run_in(Path.cwd(), [server, str(NOTEBOOK)])
    else:
        say(f"To open it: python -m {server} {NOTEBOOK}")


def _walk() -> None:
    from clrsearch import service
    from clrsearch.errors import ExitCode
    from clrsearch.reports import say

    folder, steps, waits = service.tutorial_folder(), service.tutorial_steps(), _has_terminal()
    say(
        f"{len(steps)} steps, a few minutes on two cores. All files go into {folder},",
        "where you can also run the commands yourself.",
    )
    for number, step in enumerate(steps, start=1):
        _print_step(f"{number}/{len(steps)}  {step.title}", step)
        if step.keeps is not None and (folder / step.keeps).exists():
            say(f"{step.keeps} is there already, and is left as it is.")
            continue
        if waits and not _enter():
            _leave(folder, ExitCode.DONE)
        code = service.run_in(folder, ["clrsearch", *shlex.split(step.command)[1:]])
        if code == ExitCode.INTERRUPTED:
            _leave(folder, ExitCode.INTERRUPTED)
        if code != ExitCode.DONE:
            say(
                f"clrsearch: the tutorial ends here, with exit code {code}",
                _deletion(folder),
                "Then start again with clrsearch tutorial.",
                error=True,
            )
            raise typer.Exit(code)
        if waits and step.opens is not None:
            _show_page(folder / step.opens)
    say("", "That was all. For your own studies: clrsearch --help", _deletion(folder))


def _print_step(title: str, step: Step) -> None:
    from rich.text import Text

    from clrsearch.reports import Terminal

    console = Terminal()
    console.print()
    console.print(Text(title, style="bold"))
    console.print(Text(step.text))
    console.print()
    console.print(Text(f"    {step.command}", style="cyan"), soft_wrap=True)
    console.print()


def _enter() -> bool:
    """Wait for Enter; False to leave."""
    while True:
        try:
            answer = input("Enter runs it, q leaves: ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            print()
            return False
        if answer in ("", "q"):
            return answer == ""


def _leave(folder: Path, code: int) -> NoReturn:
    from clrsearch.reports import say

    say(f"To go on: {proposals.command('tutorial')}", _deletion(folder))
    raise typer.Exit(code)


def _deletion(folder: Path) -> str:
    return f"To delete all of it: rm -r {proposals.quoted(str(folder))}"


def _has_terminal() -> bool:
    """Whether somebody can be asked, and reads what is printed."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _show_page(page: Path) -> None:
    """Open a page in a browser if there is one, and otherwise say where it is."""
    from clrsearch.reports import say

    seen = sys.platform in ("darwin", "win32") or any(os.environ.get(each) for each in _BROWSERS)
    if not (seen and webbrowser.open(page.as_uri())):
        say(f"Open {page} in a browser.")
