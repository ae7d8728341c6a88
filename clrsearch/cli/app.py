"""The commands by name, in the order in which ``--help`` lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clrsearch import proposals
from clrsearch.cli import browsing, cluster, inspecting, learning, managing, searching
from clrsearch.cli.groups import grouped

_WrongUsage: Any = typer.BadParameter.__base__  # what typer raises, and has no name of its own for

app = typer.Typer(
    name="clrsearch",
    help="Find the learning-rate schedule for your model, and get it back as code.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # its commands have them too
)
db = typer.Typer(help="Check, upgrade and secure the database.", no_args_is_help=True)


def _add(function: Callable[..., None], name: str = "", to: typer.Typer = app, **how: Any) -> None:
    """Add a command; its summary is the first line of its docstring."""
    summary, *_ = (function.__doc__ or "").splitlines()
    to.command(name or None, short_help=summary, **how)(grouped(function))


def _command(panel: str, example: str, function: Callable[..., None], name: str = "") -> None:
    """Add a command to a panel of ``--help``, with an example at the end of its own help."""
    _add(function, name, rich_help_panel=panel, epilog=f"Example: `clrsearch {example}`")


_command("Start", "tutorial", learning.tutorial)
_command("Start", "new mine.py", managing.new)
_command("Start", "schema > study.schema.json", managing.schema)
_command("Search", "run --task mine.py:Mine --trials 100", searching.run)
_command("Search", "compare --task digits --trials 120", searching.compare)
_command("Search", "confirm mine --seeds 30", searching.confirm)
_command("Search", "horizon mine.toml --epochs 5,10,20,40", searching.horizon)
_command("Search", "range-test --task mine.py:Mine -o test.png", searching.range_test, "range-test")
_command("Inspect", "list", inspecting.list_studies, "list")
_command("Inspect", "status mine --watch", inspecting.status)
_command("Inspect", "logs mine 4711", inspecting.logs)
_command("Inspect", "show mine 42", inspecting.show)
_command("Inspect", "plot mine curves -o curves.html", inspecting.plot)
_command("Inspect", "preview cyclic onecycle --set max_lr=0.1", inspecting.preview)
_command("Inspect", "dashboard mine", browsing.dashboard)
_command("Inspect", "replay mine 42", inspecting.replay)
_command("Export", "best mine --format lightning > schedule.py", inspecting.best)
_command("Export", "report mine -o report.html", browsing.report)
_command("Export", "mirror mine --to mlflow --watch", browsing.mirror)
_command("Cluster", "worker mine --max-minutes 60", searching.worker)
app.add_typer(cluster.launch, name="launch", rich_help_panel="Cluster")
_command("Manage", "retry mine", managing.retry)
_command("Manage", "cancel mine", managing.cancel)
_command("Manage", "delete mine", managing.delete)
app.add_typer(db, name="db", rich_help_panel="Manage")
_command("Manage", "doctor", inspecting.doctor)
_add(inspecting.check, to=db)
_add(managing.upgrade, to=db)
_add(managing.prune_checkpoints, "prune-checkpoints", to=db)
_add(managing.roles, to=db)


def _print_version(asked: bool) -> None:
    """Print the package's version and leave."""
    if asked:
        from importlib.metadata import version

        print(f"clrsearch {version('clrsearch')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Find the learning-rate schedule for your model, and get it back as code."""


def takes(words: Sequence[str], option: str) -> bool:
    """Whether the command that some words begin with has an option."""
    found = typer.main.get_command(app)
    for word in words:
        if not isinstance(found, typer.core.TyperGroup):
            break
        found = found.commands[word]
    return any(option in each.opts for each in found.params)


def _print_wrong_usage(error: Any) -> None:
    """One line on stderr; of a command without its subcommand, its help."""
    said = error.format_message()
    if said.startswith("Usage:"):
        print(said, file=sys.stderr)
    elif said:
        said = " ".join(said.split())
        print(f"clrsearch: {said.rstrip('.')} ({error.ctx.command_path} --help)", file=sys.stderr)


def main() -> None:
    """The entry point: an error of ours is one line on stderr, and its exit code."""
    from clrsearch.errors import ClrsearchError

    # what is written to a stream that is closed would go to another
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        Path.cwd()
    except FileNotFoundError:
        print("clrsearch: the current folder no longer exists: change to another", file=sys.stderr)
        sys.exit(2)
    try:
        with proposals.command_line(sys.argv[1:], takes):
            sys.exit(app(standalone_mode=False))
    except _WrongUsage as error:
        _print_wrong_usage(error)
        sys.exit(2)
    except typer.Abort:
        print("clrsearch: aborted", file=sys.stderr)
        sys.exit(1)
    except ClrsearchError as error:
        from clrsearch.cli.output import print_error

        print_error(error)
        sys.exit(error.exit_code)
