"""The commands by name, in the order in which ``--help`` lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from clrsearch import proposals
from clrsearch.cli import change, cluster, look, pages, working

_WrongUsage: Any = typer.BadParameter.__base__  # what typer raises, and has no name of its own for

app = typer.Typer(
    name="clrsearch",
    help="Find the learning-rate schedule for your model, and get it back as code.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # its commands have them too
)
db = typer.Typer(help="Keep the database in order.", no_args_is_help=True)

app.command()(working.run)
app.command()(working.compare)
app.command()(working.confirm)
app.command()(working.worker)
app.add_typer(cluster.launch, name="launch")
app.command("range-test")(working.range_test)
app.command()(look.best)
app.command()(look.preview)
app.command()(look.plot)
app.command()(pages.report)
app.command()(pages.dashboard)
app.command("list")(look.list_studies)
app.command()(look.status)
app.command()(look.show)
app.command()(look.replay)
app.command()(look.doctor)
app.command()(change.new)
app.command()(change.retry)
app.command()(change.cancel)
app.command()(change.delete)
app.add_typer(db, name="db")
db.command()(look.check)
db.command()(change.upgrade)
db.command("prune-checkpoints")(change.prune_checkpoints)
db.command()(change.roles)


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
        print("clrsearch: the current folder has been removed: go to another", file=sys.stderr)
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
